use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A file system where every cgroup is gone.
struct Gone;

impl CgroupFs for Gone {
    fn path_of_id(&self, _hierarchy: u32, _id: u64) -> Option<String> {
        None
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        Vec::new()
    }
}

/// One living cgroup: `/a/b`, ids 2 and 3.
struct Living;

impl CgroupFs for Living {
    fn path_of_id(&self, hierarchy: u32, id: u64) -> Option<String> {
        (hierarchy == 0 && id == 3).then(|| "/a/b".to_owned())
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        Vec::new()
    }

    fn id_of_path(&self, _hierarchy: u32, path: &str) -> Option<u64> {
        (path == "/a").then_some(2)
    }
}

fn key(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: 0, id }
}

fn contains(nodes: &Nodes, key: CgroupKey) -> bool {
    nodes.by_key.contains_key(&key)
}

fn learn(nodes: &mut Nodes, levels: &[(u64, &str)], truncated: bool) {
    let ids: Vec<u64> = levels.iter().map(|level| level.0).collect();
    nodes.learn(0, &ids, &mut levels.iter().map(|level| level.1.as_bytes()), truncated);
}

fn path(nodes: &mut Nodes, id: u64) -> Option<(String, bool)> {
    nodes.path(key(id), &Gone).map(|path| (path.text.to_string(), path.is_complete))
}

#[test]
fn a_leaf_brings_its_ancestors() {
    let mut nodes = Nodes::default();
    learn(&mut nodes, &[(9, "c"), (8, "b"), (7, "a")], false);
    assert_eq!(path(&mut nodes, 9), Some(("/a/b/c".into(), true)));
    assert_eq!(path(&mut nodes, 8), Some(("/a/b".into(), true)));
    assert_eq!(path(&mut nodes, 7), Some(("/a".into(), true)));
    assert_eq!(nodes.path(key(9), &Gone).unwrap().ids[..], [7, 8, 9]);
    assert!(!contains(&nodes, CgroupKey { hierarchy: 1, id: 9 }));
}

#[test]
fn the_lifecycle_builds_the_same_tree() {
    let mut nodes = Nodes::default();
    nodes.upsert(key(1), 0, Some(0), b"");
    nodes.upsert(key(7), 1, Some(1), b"a");
    nodes.upsert(key(9), 7, Some(2), b"c");
    assert_eq!(path(&mut nodes, 1), Some(("/".into(), true)));
    assert_eq!(path(&mut nodes, 9), Some(("/a/c".into(), true)));
    // Its making was lost, its removal was not.
    nodes.upsert(key(10), 9, Some(3), b"d");
    nodes.removed(key(10));
    assert_eq!(path(&mut nodes, 10), Some(("/a/c/d".into(), true)));
    assert_eq!(nodes.living().count(), 3);
}

#[test]
fn a_parent_that_comes_later_completes_the_path() {
    let mut nodes = Nodes::default();
    nodes.upsert(key(9), 8, Some(2), b"c");
    assert_eq!(path(&mut nodes, 9), Some(("/c".into(), false)));
    nodes.upsert(key(8), 1, Some(1), b"b");
    assert_eq!(path(&mut nodes, 9), Some(("/b/c".into(), true)));
}

#[test]
fn a_rename_is_seen_and_a_truncated_path_replaces_nothing() {
    let mut nodes = Nodes::default();
    learn(&mut nodes, &[(9, "c"), (8, "b")], false);
    assert_eq!(path(&mut nodes, 9), Some(("/b/c".into(), true)));
    let before = nodes.epoch();
    nodes.upsert(key(8), 1, Some(1), b"d");
    assert_eq!(path(&mut nodes, 9), Some(("/d/c".into(), true)));
    assert!(nodes.epoch() > before);
    learn(&mut nodes, &[(9, "c")], true);
    assert_eq!(path(&mut nodes, 9), Some(("/d/c".into(), true)));
    learn(&mut nodes, &[(5, "x")], true);
    assert_eq!(path(&mut nodes, 5), Some(("/x".into(), false)));
}

#[test]
fn hostile_names_are_harmless() {
    let mut nodes = Nodes::default();
    learn(&mut nodes, &[(9, ""), (8, "b")], false);
    learn(&mut nodes, &[(9, "../etc"), (8, "b")], false);
    assert_eq!(path(&mut nodes, 9), None);
    nodes.learn(0, &[3], &mut [&b"\xff\x1b["[..]].into_iter(), false);
    assert_eq!(path(&mut nodes, 3), Some(("/\u{fffd}\u{1b}[".into(), true)));
    let epoch = nodes.epoch();
    nodes.learn(0, &[3], &mut [&b"\xff\x1b["[..]].into_iter(), false);
    assert_eq!(nodes.epoch(), epoch, "the same bytes are no rename");
    nodes.learn(0, &[], &mut std::iter::empty(), false);
    // Fewer names than ids: the outermost are missing.
    nodes.learn(0, &[4, 5], &mut [&b"x"[..]].into_iter(), false);
    assert_eq!(path(&mut nodes, 4), Some(("/x".into(), false)));
}

#[test]
fn what_was_asked_in_vain_and_comes_changes_the_epoch() {
    let mut nodes = Nodes::default();
    assert_eq!(path(&mut nodes, 9), None);
    let before = nodes.epoch();
    nodes.upsert(key(9), 1, Some(1), b"c");
    assert!(nodes.epoch() > before);
    let before = nodes.epoch();
    nodes.upsert(key(10), 1, Some(1), b"d");
    assert_eq!(nodes.epoch(), before);
}

#[test]
fn the_file_system_is_asked_for_what_lives() {
    let mut nodes = Nodes::default();
    let path = nodes.path(key(3), &Living).unwrap();
    assert_eq!((&*path.text, path.is_complete, &path.ids[..]), ("/a/b", true, &[2, 3][..]));
    assert!(contains(&nodes, key(2)));
    // Made below it, and gone again: its parent still lives.
    let mut nodes = Nodes::default();
    nodes.upsert(key(4), 3, Some(3), b"c");
    assert_eq!(&*nodes.path(key(4), &Living).unwrap().text, "/a/b/c");
}

#[test]
fn the_dead_rest_until_the_rings_are_drained_past_them() {
    let mut nodes = Nodes::default();
    learn(&mut nodes, &[(9, "c"), (8, "b")], false);
    nodes.removed(key(9));
    nodes.released(key(9), 1_000);
    nodes.bury(1_000 + REST_NS);
    assert!(contains(&nodes, key(9)));
    nodes.bury(1_001 + REST_NS);
    assert!(!contains(&nodes, key(9)) && contains(&nodes, key(8)));

    for id in 0..GRAVEYARD as u64 + 10 {
        nodes.upsert(key(100 + id), 8, Some(2), b"x");
        nodes.released(key(100 + id), 5_000 + id);
    }
    nodes.bury(5_000);
    assert!(contains(&nodes, key(100)), "not drained yet");
    nodes.bury(u64::MAX / 2 - REST_NS);
    nodes.bury(50_000);
    assert!(!contains(&nodes, key(100)));
}

#[test]
fn the_graveyard_is_bounded() {
    let mut nodes = Nodes::default();
    for id in 1..=GRAVEYARD as u64 + 10 {
        nodes.upsert(key(id), 0, Some(1), format!("n{id}").as_bytes());
        nodes.released(key(id), id);
    }
    nodes.bury(GRAVEYARD as u64 + 11);
    assert!(!contains(&nodes, key(10)) && contains(&nodes, key(11)));
}

/// The kernel frees a removed cgroup when it has no more pages of its, which may be never.
#[test]
fn what_was_removed_is_bounded_without_a_release() {
    let mut nodes = Nodes::default();
    for id in 1..=MAX_REMOVED as u64 + 10 {
        nodes.upsert(key(id), 0, Some(1), format!("n{id}").as_bytes());
        nodes.removed(key(id));
        nodes.removed(key(id));
    }
    nodes.bury(1);
    assert!(!contains(&nodes, key(10)) && contains(&nodes, key(11)));
}

#[test]
fn a_walk_finds_what_is_gone() {
    let mut nodes = Nodes::default();
    learn(&mut nodes, &[(9, "c"), (8, "b")], false);
    nodes.upsert(CgroupKey { hierarchy: 4, id: 9 }, 0, Some(1), b"other");
    nodes.retain_seen(&[key(8)].into_iter().collect(), &[0], 70);
    let mut living: Vec<_> = nodes.living().collect();
    living.sort();
    assert_eq!(living, [key(8), CgroupKey { hierarchy: 4, id: 9 }]);
    assert_eq!(path(&mut nodes, 9), Some(("/b/c".into(), true)), "late events still find it");
}

proptest! {
    /// Any order of any records ends, and a path is never longer than the chain of its parents.
    #[test]
    fn any_records(records in prop::collection::vec((0..6_u64, 0..6_u64, 0..4_u32, "[a-c/]{0,2}"), 0..60)) {
        let mut nodes = Nodes::default();
        for (id, parent, level, name) in records {
            nodes.upsert(key(id), parent, (level < 3).then_some(level), name.as_bytes());
            if let Some(path) = nodes.path(key(id), &Gone) {
                prop_assert!(path.ids.len() <= MAX_LEVELS);
                prop_assert!(path.text.starts_with('/'));
            }
        }
    }
}
