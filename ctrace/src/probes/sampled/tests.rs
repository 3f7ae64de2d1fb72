use std::cell::RefCell;

use super::*;
use crate::event::Throttle;

thread_local! {
    /// What the files of the cgroups hold, by path: whether they are limited, and their counter.
    static FILES: RefCell<FxHashMap<String, (bool, u64)>> = RefCell::default();
}

fn write(path: &str, is_limited: bool, count: u64) {
    FILES.with_borrow_mut(|files| files.insert(path.to_owned(), (is_limited, count)));
}

fn remove(path: &str) {
    FILES.with_borrow_mut(|files| files.remove(path));
}

struct Fake;

impl Counted for Fake {
    type Counts = u64;
    type Files = String;

    fn is_limited(place: &Place) -> bool {
        FILES.with_borrow(|files| files.get(place.path).is_some_and(|file| file.0))
    }

    fn open(place: &Place) -> Option<String> {
        Some(place.path.to_owned())
    }

    fn read(path: &String) -> Option<u64> {
        FILES.with_borrow(|files| files.get(path).map(|file| file.1))
    }

    fn event(before: u64, now: u64, span_ns: u64, _place: &Place) -> Option<Payload> {
        let periods = now - before;
        let throttle = Throttle { periods, span_ns, ..Throttle::default() };
        (periods > 0).then_some(Payload::Throttle(throttle))
    }
}

#[derive(Default)]
struct Tree {
    cgroups: Vec<(u64, Arc<str>)>,
    generation: u64,
}

impl Tree {
    fn set(&mut self, cgroups: &[(u64, &str)]) {
        self.cgroups = cgroups.iter().map(|(id, path)| (*id, (*path).into())).collect();
        self.generation += 1;
    }
}

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: 3, id }
}

impl Living for Tree {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn of(&self, hierarchy: u32) -> Vec<CgroupKey> {
        assert_eq!(hierarchy, 3);
        self.cgroups.iter().map(|(id, _)| key(*id)).collect()
    }

    fn path(&mut self, wanted: CgroupKey) -> Option<Arc<str>> {
        let found = self.cgroups.iter().find(|(id, _)| key(*id) == wanted);
        found.map(|(_, path)| path.clone())
    }
}

fn sampler() -> Sampler<Fake> {
    let mount = PathBuf::from("/mount");
    Sampler::new(Controller { hierarchy: 3, version: Version::V1, mount })
}

/// The events of a second: cgroup, count and seconds.
fn tick(sampler: &mut Sampler<Fake>, tree: &mut Tree, second: u64) -> Vec<(u64, u64, u64)> {
    told(sampler.sample(tree, second * 1_000_000_000, false))
}

fn told(events: Vec<(Subject, Payload)>) -> Vec<(u64, u64, u64)> {
    let one = |(subject, payload): (Subject, Payload)| {
        let Payload::Throttle(throttle) = payload else { panic!() };
        assert!(!subject.is_process());
        let id = subject.cgroup.expect("a cgroup").key.id;
        (id, throttle.periods, throttle.span_ns / 1_000_000_000)
    };
    events.into_iter().map(one).collect()
}

#[test]
fn the_first_at_once_and_then_sums() {
    let (mut sampler, mut tree) = (sampler(), Tree::default());
    tree.set(&[(1, "/old"), (2, "/idle")]);
    write("/old", true, 100);
    write("/idle", false, 0);
    assert_eq!(tick(&mut sampler, &mut tree, 10), [], "it has counted before");
    write("/old", true, 101);
    assert_eq!(tick(&mut sampler, &mut tree, 11), [(1, 1, 1)]);
    for second in 12..21 {
        write("/old", true, 90 + second);
        assert_eq!(tick(&mut sampler, &mut tree, second), []);
    }
    write("/old", true, 111);
    assert_eq!(tick(&mut sampler, &mut tree, 21), [(1, 10, 10)]);
    write("/old", true, 115);
    assert_eq!(tick(&mut sampler, &mut tree, 22), []);
    assert_eq!(told(sampler.sample(&mut tree, 23_000_000_000, true)), [(1, 4, 2)], "the end");
}

#[test]
fn a_new_cgroup_counts_from_its_beginning_and_to_its_end() {
    let (mut sampler, mut tree) = (sampler(), Tree::default());
    assert_eq!(tick(&mut sampler, &mut tree, 1), []);
    tree.set(&[(7, "/new")]);
    write("/new", false, 0);
    assert_eq!(tick(&mut sampler, &mut tree, 2), []);
    // Its runtime writes the limit a moment later.
    write("/new", true, 5);
    assert_eq!(tick(&mut sampler, &mut tree, 3), [(7, 5, 2)]);
    write("/new", true, 9);
    assert_eq!(tick(&mut sampler, &mut tree, 4), []);
    tree.set(&[]);
    remove("/new");
    assert_eq!(tick(&mut sampler, &mut tree, 5), [(7, 4, 2)], "what was read before it went");
    assert!(sampler.cgroups.is_empty());
}

#[test]
fn limits_are_found_in_turn() {
    let (mut sampler, mut tree) = (sampler(), Tree::default());
    let paths: Vec<String> = (0..5 * LOOKS).map(|id| format!("/{id}")).collect();
    let cgroups: Vec<(u64, &str)> =
        paths.iter().enumerate().map(|(id, path)| (id as u64 + 1, path.as_str())).collect();
    tree.set(&cgroups);
    paths.iter().for_each(|path| write(path, false, 1));
    for second in 1..=LOOKS_WHEN_NEW.into() {
        assert_eq!(tick(&mut sampler, &mut tree, second), []);
    }
    // A limit that is set later, on a cgroup that was there from the start.
    write(&paths[17], true, 1);
    let mut at = 10;
    while !sampler.cgroups[&key(18)].is_limited {
        assert_eq!(tick(&mut sampler, &mut tree, at), []);
        at += 1;
        assert!(at <= 15, "all have had their turn");
    }
    write(&paths[17], true, 3);
    assert_eq!(
        tick(&mut sampler, &mut tree, at).first().map(|told| (told.0, told.1)),
        Some((18, 2))
    );
}

#[test]
fn all_are_read_where_files_cannot_be_kept() {
    let (mut sampler, mut tree) = (sampler(), Tree::default());
    sampler.room = 2;
    let paths = ["/a", "/b", "/c", "/d"];
    paths.iter().for_each(|path| write(path, true, 1));
    tree.set(&[(1, "/a"), (2, "/b"), (3, "/c"), (4, "/d")]);
    assert_eq!(tick(&mut sampler, &mut tree, 1), []);
    let kept = |sampler: &Sampler<Fake>| {
        sampler.cgroups.values().filter(|cgroup| cgroup.files.is_some()).count()
    };
    assert_eq!(kept(&sampler), 2);
    paths.iter().for_each(|path| write(path, true, 2));
    assert_eq!(tick(&mut sampler, &mut tree, 2).len(), 4);
    assert_eq!(kept(&sampler), 2);
}

#[test]
fn turns_do_not_pile_up() {
    let (mut sampler, mut tree) = (sampler(), Tree::default());
    for second in 1..500 {
        tree.set(&[(second, "/come-and-go")]);
        tick(&mut sampler, &mut tree, second);
    }
    assert!(sampler.turns.len() <= LOOKS + 1, "{}", sampler.turns.len());
}
