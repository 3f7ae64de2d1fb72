use std::fs;

use super::*;
use crate::attribute::tests::{A, B, Host};

const MS: Duration = Duration::from_millis(1);

struct Stage {
    host: Host,
    turns: Turns,
    now: Instant,
}

impl Stage {
    fn new(mut host: Host) -> Self {
        host.attributor.on_readable();
        host.attributor.walk(0);
        let turns = Turns::new(&mut host.attributor);
        Self { host, turns, now: Instant::now() }
    }

    /// A cgroup at the top of a hierarchy, or below `/docker`.
    fn made(&mut self, hierarchy: u32, path: &str, time_ns: u64) -> Vec<String> {
        let key = self.host.cgroup(hierarchy, path);
        let mut parent = 0;
        let mut above = String::new();
        for (level, name) in path.split('/').skip(1).enumerate() {
            above = format!("{above}/{name}");
            let key = self.host.cgroup(hierarchy, &above);
            self.host.attributor.made(key, parent, level as u32 + 1, name.as_bytes());
            parent = key.id;
        }
        self.take(Change { key, is_made: true, time_ns })
    }

    fn removed(&mut self, hierarchy: u32, path: &str, time_ns: u64) -> Vec<String> {
        let key = self.host.cgroup(hierarchy, path);
        self.host.attributor.removed(key, 0, 2, path.rsplit('/').next().unwrap().as_bytes());
        self.take(Change { key, is_made: false, time_ns })
    }

    fn take(&mut self, change: Change) -> Vec<String> {
        let mut say = Vec::new();
        self.turns.change(&mut self.host.attributor, change, self.now, &mut say);
        self.turns.settle(&mut self.host.attributor, self.now, &mut say);
        words(&say)
    }

    fn settle(&mut self) -> Vec<String> {
        self.host.attributor.on_readable();
        let mut say = Vec::new();
        self.turns.settle(&mut self.host.attributor, self.now, &mut say);
        words(&say)
    }
}

fn words(say: &[Happening]) -> Vec<String> {
    let word = |happening: &Happening| match happening {
        Happening::Turn { turn, listed, .. } => {
            let sign = if *turn == Turn::Start { '+' } else { '-' };
            format!("{sign}{}", listed.container.label())
        }
        Happening::Lost(lost) => format!("lost {}", lost.count),
    };
    say.iter().map(word).collect()
}

#[test]
fn from_the_first_cgroup_to_the_last() {
    let host = Host::new();
    host.docker(A, "batch");
    let mut stage = Stage::new(host);
    let path = format!("/docker/{A}");
    assert_eq!(stage.made(0, &path, 5), ["+batch"]);
    assert!(stage.made(4, &path, 6).is_empty());
    assert!(stage.made(4, &format!("{path}/inner"), 7).is_empty());
    assert!(stage.removed(4, &format!("{path}/inner"), 8).is_empty());
    assert!(stage.removed(0, &path, 8).is_empty());
    assert_eq!(stage.removed(4, &path, 9), ["-batch"]);
}

#[test]
fn the_name_is_waited_for() {
    let mut stage = Stage::new(Host::new());
    assert!(stage.made(0, &format!("/docker/{A}"), 5).is_empty());
    stage.host.docker(A, "late");
    stage.now += 100 * MS;
    assert_eq!(stage.settle(), ["+late"]);
    assert_eq!(stage.turns.due(), None);
}

#[test]
fn but_not_for_ever() {
    let mut stage = Stage::new(Host::new());
    stage.made(0, &format!("/docker/{A}"), 5);
    assert_eq!(stage.turns.due(), Some(stage.now + NAME_WAIT));
    stage.now += NAME_WAIT;
    assert_eq!(stage.settle(), [format!("+{}", &A[..12])]);
    stage.host.docker(A, "late");
    assert!(stage.settle().is_empty());
    assert_eq!(stage.removed(0, &format!("/docker/{A}"), 9), ["-late"]);
}

#[test]
fn one_that_ends_before_its_name_came_has_started_as_well() {
    let mut stage = Stage::new(Host::new());
    let path = format!("/docker/{A}");
    stage.made(0, &path, 5);
    let short = &A[..12];
    assert_eq!(stage.removed(0, &path, 6), [format!("+{short}"), format!("-{short}")]);
}

/// runc writes its state after it has made the cgroup.
#[test]
fn free_text_starts_when_its_state_is_there() {
    let mut stage = Stage::new(Host::new());
    assert!(stage.made(0, "/web", 5).is_empty());
    stage.host.runc("web", "/bundle", 0);
    stage.now += 120 * MS;
    assert_eq!(stage.settle(), ["+web"]);
    fs::remove_dir_all(stage.host.root.path().join("runc/web")).unwrap();
    assert!(stage.settle().is_empty());
    assert_eq!(stage.removed(0, "/web", 9), ["-web"]);
}

#[test]
fn a_cgroup_of_nobody_is_forgotten() {
    let mut stage = Stage::new(Host::new());
    assert!(stage.made(0, "/web", 5).is_empty());
    stage.now += CLAIM_WAIT;
    assert!(stage.settle().is_empty());
    assert!(stage.turns.unclaimed.is_empty());
}

#[test]
fn what_was_there_before_only_ends() {
    let host = Host::new();
    host.docker(A, "old");
    let path = format!("/docker/{A}");
    host.cgroup(0, &path);
    let mut stage = Stage::new(host);
    assert!(stage.settle().is_empty());
    assert_eq!(stage.removed(0, &path, 9), ["-old"]);
}

#[test]
fn a_walk_makes_up_for_what_was_lost() {
    let host = Host::new();
    host.docker(A, "gone");
    host.docker(B, "new");
    let path = format!("/docker/{A}");
    host.cgroup(0, &path);
    let mut stage = Stage::new(host);
    // In this order, because a file system uses an inode again, as kernfs does not.
    stage.host.cgroup(0, &format!("/docker/{B}"));
    fs::remove_dir(stage.host.root.path().join(format!("cgroup/unified{path}"))).unwrap();
    stage.host.attributor.walk(9);
    let mut say = Vec::new();
    stage.turns.resync(&mut stage.host.attributor, 9, stage.now, &mut say);
    stage.turns.settle(&mut stage.host.attributor, stage.now, &mut say);
    assert_eq!(words(&say), ["-gone", "+new"]);
}
