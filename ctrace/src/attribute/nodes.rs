//! The cgroups that events have named.

use std::sync::Arc;

use super::bounded::Bounded;
use super::resolve::Resolution;
use super::{CgroupFs, cgroup};
use crate::event::CgroupKey;

/// Cgroups that are remembered, with the ancestors of each.
const MAX_NODES: usize = 16 << 10;
/// Bytes of paths and ancestors that are remembered.
const MAX_BYTES: usize = 4 << 20;

/// One cgroup.
#[derive(Clone)]
pub struct Node {
    /// Path below the root of the hierarchy, with a leading slash. Not UTF-8: replaced.
    pub path: Arc<str>,
    /// `path` begins at the root; else its outermost levels are missing.
    pub complete: bool,
    /// Ids of the levels of `path`, outermost first, the cgroup's own last; 0 where it is not known.
    pub ids: Arc<[u64]>,
    /// What was found out last.
    pub resolution: Option<Arc<Resolution>>,
}

pub struct Nodes {
    by_key: Bounded<CgroupKey, Node>,
}

impl Nodes {
    pub fn new() -> Self {
        Self { by_key: Bounded::new(MAX_NODES, MAX_BYTES) }
    }

    pub fn get(&mut self, key: CgroupKey) -> Option<&mut Node> {
        self.by_key.get(&key)
    }

    /// Takes in the levels of a path, leaf first, and all the cgroups above it.
    ///
    /// `truncated`: there are levels above the last one.
    pub fn learn(
        &mut self,
        hierarchy: u32,
        ids: &[u64],
        names: &mut dyn Iterator<Item = &[u8]>,
        truncated: bool,
    ) {
        let levels: Vec<(u64, &[u8])> = ids.iter().copied().zip(names).collect();
        let truncated = truncated || levels.len() < ids.len();
        let Some(&(leaf, _)) = levels.first() else { return };
        let leaf = CgroupKey { hierarchy, id: leaf };
        if self.get(leaf).is_some_and(|node| is_known(node, &levels, truncated)) {
            return;
        }
        if levels.iter().any(|(_, name)| name.is_empty() || name.contains(&b'/')) {
            return;
        }
        let mut path = String::new();
        let mut above = Vec::with_capacity(levels.len());
        for &(id, name) in levels.iter().rev() {
            path.push('/');
            path.push_str(&String::from_utf8_lossy(name));
            above.push(id);
            self.upsert(CgroupKey { hierarchy, id }, &path, &above, !truncated);
        }
    }

    /// The cgroup; where no record has named it in full, from the file system, while it lives.
    pub fn look_up(&mut self, key: CgroupKey, cgroups: &dyn CgroupFs) -> Option<&mut Node> {
        let is_complete = self.get(key).is_some_and(|node| node.complete);
        let path = if is_complete { None } else { cgroups.path_of_id(key.hierarchy, key.id) };
        if let Some(path) = path {
            let depth = cgroup::components(&path).count();
            let mut ids = vec![0; depth];
            let mut above = path.as_str();
            for id in ids.iter_mut().rev() {
                *id = cgroups.id_of_path(key.hierarchy, above).unwrap_or(0);
                above = above.rsplit_once('/').map_or("", |(above, _)| above);
            }
            if let Some(own) = ids.last_mut() {
                *own = key.id;
            }
            self.upsert(key, &path, &ids, true);
        }
        self.get(key)
    }

    fn upsert(&mut self, key: CgroupKey, path: &str, ids: &[u64], complete: bool) {
        if let Some(node) = self.get(key) {
            let known = *node.path == *path && *node.ids == *ids && node.complete == complete;
            // A truncated record knows less than what was read before.
            if known || (node.complete && !complete) {
                return;
            }
        }
        let bytes = path.len() + size_of_val(ids) + size_of::<Node>();
        let node = Node { path: path.into(), complete, ids: ids.into(), resolution: None };
        self.by_key.insert(key, node, bytes);
    }
}

/// The node is what the record says, so that the record of each event costs a comparison. A cgroup
/// of v1 can be renamed: its names are compared, too.
fn is_known(node: &Node, levels: &[(u64, &[u8])], truncated: bool) -> bool {
    let is_same = node.ids.len() == levels.len()
        && node.ids.iter().rev().zip(levels).all(|(id, level)| *id == level.0)
        && node.path.rsplit('/').zip(levels).all(|(name, level)| name.as_bytes() == level.1);
    is_same && node.complete != truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(nodes: &mut Nodes, levels: &[(u64, &str)], truncated: bool) {
        let ids: Vec<u64> = levels.iter().map(|level| level.0).collect();
        nodes.learn(0, &ids, &mut levels.iter().map(|level| level.1.as_bytes()), truncated);
    }

    fn path(nodes: &mut Nodes, id: u64) -> Option<(String, bool)> {
        nodes.get(CgroupKey { hierarchy: 0, id }).map(|node| (node.path.to_string(), node.complete))
    }

    #[test]
    fn a_leaf_brings_its_ancestors() {
        let mut nodes = Nodes::new();
        learn(&mut nodes, &[(9, "c"), (8, "b"), (7, "a")], false);
        assert_eq!(path(&mut nodes, 9), Some(("/a/b/c".into(), true)));
        assert_eq!(path(&mut nodes, 8), Some(("/a/b".into(), true)));
        assert_eq!(path(&mut nodes, 7), Some(("/a".into(), true)));
        assert!(nodes.get(CgroupKey { hierarchy: 1, id: 9 }).is_none());
    }

    #[test]
    fn a_rename_is_seen_and_a_truncated_path_replaces_nothing() {
        let mut nodes = Nodes::new();
        learn(&mut nodes, &[(9, "c"), (8, "b")], false);
        learn(&mut nodes, &[(9, "d"), (8, "b")], false);
        assert_eq!(path(&mut nodes, 9), Some(("/b/d".into(), true)));
        learn(&mut nodes, &[(9, "d")], true);
        assert_eq!(path(&mut nodes, 9), Some(("/b/d".into(), true)));
        learn(&mut nodes, &[(5, "x")], true);
        assert_eq!(path(&mut nodes, 5), Some(("/x".into(), false)));
    }

    #[test]
    fn hostile_names_are_harmless() {
        let mut nodes = Nodes::new();
        learn(&mut nodes, &[(9, ""), (8, "b")], false);
        learn(&mut nodes, &[(9, "../etc"), (8, "b")], false);
        assert_eq!(path(&mut nodes, 9), None);
        nodes.learn(0, &[3], &mut [&b"\xff\x1b["[..]].into_iter(), false);
        assert_eq!(path(&mut nodes, 3), Some(("/\u{fffd}\u{1b}[".into(), true)));
        nodes.learn(0, &[], &mut std::iter::empty(), false);
        // Fewer names than ids: the outermost are missing.
        nodes.learn(0, &[4, 5], &mut [&b"x"[..]].into_iter(), false);
        assert_eq!(path(&mut nodes, 4), Some(("/x".into(), false)));
    }
}
