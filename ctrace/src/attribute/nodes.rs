//! The tree of cgroups, as the lifecycle ring, the walk at start-up and the paths in records tell it.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::resolve::{CgroupPath, Resolution};
use super::{CgroupFs, cgroup};
use crate::event::CgroupKey;

/// Cgroups that are gone and still remembered, for events that are drained late.
const GRAVEYARD: usize = 8 << 10;
/// Cgroups whose directory is gone and that the kernel has not freed, as long as it has pages of
/// theirs: what they wrote is still to be written back.
const MAX_REMOVED: usize = 32 << 10;
/// How long a freed cgroup is remembered at least, nanoseconds.
const REST_NS: u64 = 60_000_000_000;
/// Longest chain of parents that is followed; a loop cannot come from a kernel.
const MAX_LEVELS: usize = 256;
/// Ids that were asked for and not found; more are forgotten.
const MAX_MISSED: usize = 16 << 10;

/// One cgroup.
#[derive(Debug)]
struct Node {
    /// kernfs id of the one above; 0: not known.
    parent: u64,
    /// Levels below the root of its hierarchy; absent: not known.
    level: Option<u16>,
    /// Not UTF-8: replaced.
    name: Arc<str>,
    is_gone: bool,
    /// Worked out when an event asks for it.
    path: Option<Arc<CgroupPath>>,
    /// What was found out last.
    resolution: Option<Arc<Resolution>>,
}

#[derive(Default)]
pub struct Nodes {
    by_key: FxHashMap<CgroupKey, Node>,
    /// A container has the same name in up to thirteen hierarchies.
    names: FxHashSet<Arc<str>>,
    /// Freed cgroups and when, oldest first.
    graveyard: VecDeque<(u64, CgroupKey)>,
    /// Removed cgroups, freed by now or not, oldest first.
    removed: VecDeque<CgroupKey>,
    /// Asked for in vain.
    missed: FxHashSet<CgroupKey>,
    /// Grows when what was answered may no longer be true.
    epoch: u64,
    /// Cgroups that have come to be known.
    births: u64,
    /// Cgroups that are known to have gone.
    deaths: u64,
}

impl Nodes {
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Grows with each cgroup that is new here.
    pub fn births(&self) -> u64 {
        self.births
    }

    /// Grows with each cgroup that goes.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// A cgroup was made, is there, or has a new name. `level` 0 is the hierarchy's root.
    pub fn upsert(&mut self, key: CgroupKey, parent: u64, level: Option<u32>, name: &[u8]) {
        let level = level.and_then(|level| u16::try_from(level).ok());
        if key.id == 0 || name.contains(&b'/') || (name.is_empty() && level != Some(0)) {
            return;
        }
        if self.missed.remove(&key) {
            self.epoch += 1;
        }
        if let Some(node) = self.by_key.get_mut(&key) {
            let is_same = name == node.name.as_bytes() || level == Some(0);
            node.level = node.level.or(level);
            if node.parent == 0 && parent != 0 {
                node.parent = parent;
                node.path = None;
            }
            if is_same || *node.name == *String::from_utf8_lossy(name) {
                return;
            }
            let name = self.intern(name);
            if let Some(node) = self.by_key.get_mut(&key) {
                node.name = name;
            }
            self.forget_paths();
            return;
        }
        let name = self.intern(name);
        let node = Node { parent, level, name, is_gone: false, path: None, resolution: None };
        self.by_key.insert(key, node);
        self.births += 1;
    }

    /// Its directory is gone. Processes that are ending may still be in it.
    pub fn removed(&mut self, key: CgroupKey) {
        if let Some(node) = self.by_key.get_mut(&key)
            && !std::mem::replace(&mut node.is_gone, true)
        {
            self.deaths += 1;
            self.removed.push_back(key);
        }
    }

    /// The kernel has freed it, at `time_ns` since boot.
    pub fn released(&mut self, key: CgroupKey, time_ns: u64) {
        if let Some(node) = self.by_key.get_mut(&key) {
            self.deaths += u64::from(!std::mem::replace(&mut node.is_gone, true));
            self.graveyard.push_back((time_ns, key));
        }
    }

    /// Takes in the levels of a path, leaf first, with the ids of all levels. `truncated`: there are
    /// levels above the last one.
    pub fn learn(
        &mut self,
        hierarchy: u32,
        ids: &[u64],
        names: &mut dyn Iterator<Item = &[u8]>,
        truncated: bool,
    ) {
        let levels: Vec<(u64, &[u8])> = ids.iter().copied().zip(names).collect();
        let truncated = truncated || levels.len() < ids.len();
        if levels.iter().any(|(_, name)| name.is_empty() || name.contains(&b'/')) {
            return;
        }
        let mut parent = 0;
        for (index, &(id, name)) in levels.iter().rev().enumerate() {
            let level = (!truncated).then_some(index as u32 + 1);
            self.upsert(CgroupKey { hierarchy, id }, parent, level, name);
            parent = id;
        }
    }

    /// Where the cgroup is. What no record has told is asked of the file system, while it lives.
    pub fn path(&mut self, key: CgroupKey, cgroups: &dyn CgroupFs) -> Option<Arc<CgroupPath>> {
        if let Some(path) = self.by_key.get(&key).and_then(|node| node.path.clone()) {
            return Some(path);
        }
        let (mut path, unknown) = self.build(key);
        if unknown.is_some_and(|unknown| self.ask(unknown, cgroups)) {
            (path, _) = self.build(key);
        }
        let Some(node) = self.by_key.get_mut(&key) else {
            if self.missed.len() >= MAX_MISSED {
                self.missed.clear();
            }
            self.missed.insert(key);
            return None;
        };
        let path = Arc::new(path);
        // One that is not complete may still become so.
        if path.is_complete {
            node.path = Some(path.clone());
        }
        Some(path)
    }

    /// The path of what is known, and the id where the knowledge ends before the root.
    pub fn build(&self, key: CgroupKey) -> (CgroupPath, Option<CgroupKey>) {
        let mut levels: Vec<(u64, &str)> = Vec::new();
        let mut at = key;
        let unknown = loop {
            let Some(node) = self.by_key.get(&at) else { break Some(at) };
            if node.level == Some(0) {
                break None;
            }
            levels.push((at.id, &node.name));
            if node.level == Some(1) {
                break None;
            }
            if node.parent == 0 || levels.len() >= MAX_LEVELS {
                break Some(at);
            }
            at.id = node.parent;
        };
        let names: Vec<&str> = levels.iter().rev().map(|level| level.1).collect();
        let path = CgroupPath {
            text: format!("/{}", names.join("/")).into(),
            is_complete: unknown.is_none(),
            ids: levels.iter().rev().map(|level| level.0).collect(),
        };
        (path, unknown)
    }

    /// Asks the file system for the path of `unknown`; returns whether all of it was learned.
    fn ask(&mut self, unknown: CgroupKey, cgroups: &dyn CgroupFs) -> bool {
        let hierarchy = unknown.hierarchy;
        let Some(path) = cgroups.path_of_id(hierarchy, unknown.id) else { return false };
        let names: Vec<&str> = cgroup::components(&path).collect();
        if names.is_empty() {
            self.upsert(unknown, 0, Some(0), b"");
            return true;
        }
        let mut parent = 0;
        let mut above = String::new();
        for (index, name) in names.iter().enumerate() {
            above = format!("{above}/{name}");
            let is_own = index + 1 == names.len();
            let id = if is_own { Some(unknown.id) } else { cgroups.id_of_path(hierarchy, &above) };
            // It went away meanwhile: what is below it cannot be placed by walking up.
            let Some(id) = id else { return false };
            let key = CgroupKey { hierarchy, id };
            self.upsert(key, parent, Some(index as u32 + 1), name.as_bytes());
            parent = id;
        }
        true
    }

    pub fn resolution(&self, key: CgroupKey) -> Option<Arc<Resolution>> {
        self.by_key.get(&key)?.resolution.clone()
    }

    pub fn set_resolution(&mut self, key: CgroupKey, resolution: Arc<Resolution>) {
        if let Some(node) = self.by_key.get_mut(&key) {
            node.resolution = Some(resolution);
        }
    }

    /// Cgroups that live, as far as is known.
    pub fn living(&self) -> impl Iterator<Item = CgroupKey> + use<'_> {
        self.by_key.iter().filter(|(_, node)| !node.is_gone).map(|(key, _)| *key)
    }

    /// Whether it is there and not gone.
    pub fn lives(&self, key: CgroupKey) -> bool {
        self.by_key.get(&key).is_some_and(|node| !node.is_gone)
    }

    /// Whether a living cgroup has `part` in its name.
    pub fn any_named(&self, part: &str) -> bool {
        self.by_key.values().any(|node| !node.is_gone && node.name.contains(part))
    }

    /// After a walk over `walked`, which began at `time_ns`: what it did not see is gone.
    pub fn retain_seen(
        &mut self,
        walked: &FxHashSet<CgroupKey>,
        hierarchies: &[u32],
        time_ns: u64,
    ) {
        for (key, node) in &mut self.by_key {
            if !node.is_gone && hierarchies.contains(&key.hierarchy) && !walked.contains(key) {
                node.is_gone = true;
                self.deaths += 1;
                self.graveyard.push_back((time_ns, *key));
            }
        }
    }

    /// Forgets what has been gone for long, or is too much. `drained_ns`: all that happened before it
    /// has been taken out of the rings.
    pub fn bury(&mut self, drained_ns: u64) {
        while let Some(&(released, key)) = self.graveyard.front() {
            let is_rested = released.saturating_add(REST_NS) < drained_ns;
            let is_too_much = self.graveyard.len() > GRAVEYARD && released < drained_ns;
            if !is_rested && !is_too_much {
                break;
            }
            self.graveyard.pop_front();
            self.by_key.remove(&key);
        }
        while self.removed.len() > MAX_REMOVED {
            self.removed.pop_front().map(|key| self.by_key.remove(&key));
        }
        if self.names.len() > 2 * self.by_key.len() + 1024 {
            self.names.retain(|name| Arc::strong_count(name) > 1);
        }
    }

    /// A name has changed: so have the paths below it.
    fn forget_paths(&mut self) {
        self.epoch += 1;
        for node in self.by_key.values_mut() {
            node.path = None;
            node.resolution = None;
        }
    }

    fn intern(&mut self, name: &[u8]) -> Arc<str> {
        let name = String::from_utf8_lossy(name);
        if let Some(known) = self.names.get(&*name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests;
