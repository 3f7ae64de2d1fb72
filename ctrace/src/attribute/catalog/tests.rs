use std::fs;
use std::path::PathBuf;

use super::*;

const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";

/// No hierarchy is mounted.
struct NoCgroups;

impl CgroupFs for NoCgroups {
    fn path_of_id(&self, _hierarchy: u32, _id: u64) -> Option<String> {
        None
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        Vec::new()
    }
}

/// docker's files below `root`, and those of a user's docker.
fn catalog(root: &Path) -> Catalog {
    let users = Roots { docker: vec![root.join("users")], ..Roots::default() };
    let docker = vec![root.join("system")];
    let roots = Roots { docker, users: Some(Box::new(users)), ..Roots::default() };
    Catalog::new(roots, &NoCgroups)
}

fn file(root: &Path, whose: &str, id: &str) -> PathBuf {
    let file = root.join(whose).join("containers").join(id).join("config.v2.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    file
}

fn config(id: &str) -> String {
    format!(r#"{{"ID":"{id}","Name":"/{id}"}}"#)
}

fn ids(catalog: &Catalog) -> Vec<String> {
    let mut ids: Vec<String> =
        catalog.staged.containers().map(|container| container.id.clone()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn a_file_that_is_being_written_is_not_unreadable() {
    let root = tempfile::tempdir().unwrap();
    for whose in ["system", "users"] {
        let old = file(root.path(), whose, "old");
        fs::write(&old, "{").unwrap();
        let mut catalog = catalog(root.path());
        let before = catalog.unreadable();
        assert!(before > 0, "what was there is taken to be whole");
        let new = file(root.path(), whose, A);
        fs::write(&new, "{").unwrap();
        let open = fs::OpenOptions::new().append(true).open(&new).unwrap();
        catalog.on_readable(&NoCgroups);
        // It was closed once, in a directory that was not watched yet.
        assert_eq!((catalog.unreadable(), ids(&catalog).len()), (before, 0), "{whose}");
        fs::write(&new, config(A)).unwrap();
        drop(open);
        catalog.on_readable(&NoCgroups);
        assert_eq!((catalog.unreadable(), ids(&catalog)), (before, vec![A.to_owned()]), "{whose}");
        fs::write(&new, "{").unwrap();
        catalog.on_readable(&NoCgroups);
        assert_eq!(catalog.unreadable(), before + 1, "{whose}");
        // To look for it again is not to find another.
        catalog.look_up(A, &NoCgroups);
        assert_eq!(catalog.unreadable(), before + 1, "{whose}");
    }
}

#[test]
fn users_files_are_read_a_part_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let mut catalog = catalog(root.path());
    for id in ["a", "b", "c"] {
        fs::write(file(root.path(), "users", id), config(id)).unwrap();
    }
    fs::write(file(root.path(), "system", "d"), config("d")).unwrap();
    let written = catalog.users.watcher.drain();
    assert_eq!(written.len(), 3);
    catalog.read_users(written, Duration::ZERO, &NoCgroups);
    assert_eq!(ids(&catalog), ["a"]);
    catalog.read_users(Vec::new(), Duration::ZERO, &NoCgroups);
    assert_eq!(ids(&catalog), ["a", "b"]);
    // The rest needs no event of its own.
    catalog.on_readable(&NoCgroups);
    assert_eq!(ids(&catalog), ["a", "b", "c", "d"]);
    // As many as a user likes.
    let path = |number: usize| PathBuf::from(format!("/dev/null/{number}"));
    let written = |number| Written { store: 0, path: path(number), is_young: false };
    let many = (0..MAX_WAITING + 11).map(written).collect();
    catalog.read_users(many, Duration::ZERO, &NoCgroups);
    assert_eq!((catalog.waiting.len(), catalog.unreadable()), (MAX_WAITING, 10));
}

#[test]
fn a_user_overflows_his_own_queue_only() {
    let root = tempfile::tempdir().unwrap();
    let his = file(root.path(), "users", "his");
    let mut catalog = catalog(root.path());
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    // Neighbouring events that are equal are merged: two files take turns.
    for number in 0..limit {
        fs::write(his.with_file_name(if number % 2 == 0 { "a" } else { "b" }), "").unwrap();
    }
    fs::write(file(root.path(), "system", "d"), config("d")).unwrap();
    assert_eq!(catalog.system.watcher.drain().len(), 1);
    assert_eq!(catalog.system.watcher.overflows(), 0);
    catalog.on_readable(&NoCgroups);
    assert_eq!(catalog.watch_overflows(), 1);
}

#[test]
fn large_files_of_users_are_not_read() {
    let root = tempfile::tempdir().unwrap();
    let large = |id: &str| format!("{}{}", config(id), " ".repeat(300 << 10));
    fs::write(file(root.path(), "users", "his"), large("his")).unwrap();
    fs::write(file(root.path(), "system", "roots"), large("roots")).unwrap();
    let catalog = catalog(root.path());
    assert_eq!((ids(&catalog), catalog.unreadable()), (vec!["roots".to_owned()], 1));
}

#[test]
fn a_user_does_not_make_a_search_long() {
    let root = tempfile::tempdir().unwrap();
    let users = Roots { nerdctl: vec![root.path().to_owned()], ..Roots::default() };
    let roots = Roots { users: Some(Box::new(users)), ..Roots::default() };
    let names = root.path().join("names/default");
    fs::create_dir_all(&names).unwrap();
    for number in 0..1000 {
        fs::write(names.join(number.to_string()), A).unwrap();
    }
    let backends = runtime::backends(&roots);
    let found = backends.iter().map(|backend| match runtime::lookup(&**backend, A) {
        Lookup::Found(found) => found.len(),
        Lookup::Unknown | Lookup::Unreadable(_) => 0,
    });
    assert_eq!(found.sum::<usize>(), 256);
}
