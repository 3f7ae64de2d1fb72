//! Metadata that has been read: known before a container's first event, kept after its last.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CgroupFs;
use super::bounded::Bounded;
use super::cgroup::is_hex64;
use super::runtime::{Init, Metadata, Placement};
use crate::event::{CgroupKey, Container, Pod, Runtime, State};

/// Containers that are remembered, living or not.
const MAX_CONTAINERS: usize = 8 << 10;
/// Bytes of their metadata: labels have no limit of their own.
const MAX_BYTES: usize = 16 << 20;

/// What is known of one container from one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub container: Arc<Container>,
    /// All but the container, which is above.
    metadata: Metadata,
    /// Position of the backend that read it: a lower one knows more.
    rank: usize,
}

/// What is known of an id.
#[derive(Clone, Debug, Default)]
struct Slot {
    entries: Vec<Entry>,
    /// What a runtime said when it was asked.
    told: Option<Container>,
    /// The best of `entries`, with what it lacks filled in.
    known: Option<Arc<Container>>,
    /// An answer was given from it.
    is_asked: bool,
}

impl Slot {
    /// Works out `known` anew; returns whether an answer that was given is another now.
    fn renew(&mut self) -> bool {
        let best = best(&self.entries).map(|entry| entry.container.clone());
        let is_users = self.entries.iter().all(Entry::is_users);
        let known = match (best, &self.told) {
            // What a user's file says of a container that root's runtime knows is no better.
            (Some(_), Some(told)) if is_users => Some(Arc::new(told.clone())),
            (Some(mut best), Some(told)) => {
                Arc::make_mut(&mut best).fill(told);
                Some(best)
            }
            (best, told) => best.or_else(|| told.clone().map(Arc::new)),
        };
        let is_other = known != self.known;
        self.known = known;
        is_other && self.is_asked
    }

    fn bytes(&self) -> usize {
        let told = self.told.as_ref().map_or(0, size_of_container);
        size_of::<Self>() + self.entries.iter().map(size_of_entry).sum::<usize>() + 2 * told
    }
}

pub struct Staged {
    by_id: Bounded<String, Slot>,
    /// Containers whose cgroups were seen on disk. Only those whose id is free text: 64 digits in a
    /// cgroup's name say as much.
    by_cgroup: Bounded<CgroupKey, Vec<Entry>>,
    generation: u64,
}

impl Staged {
    pub fn new() -> Self {
        Self {
            by_id: Bounded::new(MAX_CONTAINERS, MAX_BYTES),
            by_cgroup: Bounded::new(MAX_CONTAINERS, MAX_BYTES / 4),
            generation: 0,
        }
    }

    /// Grows when an answer that was given may be another now.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes in what the backend at `rank` has read.
    pub fn stage(&mut self, rank: usize, mut metadata: Metadata, cgroups: &dyn CgroupFs) {
        let id = metadata.container.id.clone();
        let keys = if is_hex64(&id) { Vec::new() } else { keys_of(&metadata, cgroups) };
        let container = Arc::new(std::mem::take(&mut metadata.container));
        let entry = Entry { container, metadata, rank };
        for key in keys {
            let entries = self.by_cgroup.get(&key).map(|old| old.clone()).unwrap_or_default();
            if let Some(entries) = merged(&entries, &entry) {
                let bytes = entries.iter().map(size_of_entry).sum();
                self.by_cgroup.insert(key, entries, bytes);
                self.generation += 1;
            }
        }
        let mut slot = self.by_id.get(&id).map(std::mem::take).unwrap_or_default();
        if let Some(entries) = merged(&slot.entries, &entry) {
            slot.entries = entries;
        }
        self.put(id, slot);
    }

    /// Takes in what a runtime said when it was asked.
    pub fn tell(&mut self, container: Container) {
        if !is_hex64(&container.id) {
            return;
        }
        let id = container.id.clone();
        let mut slot = self.by_id.get(&id).map(std::mem::take).unwrap_or_default();
        slot.told = Some(container);
        self.put(id, slot);
    }

    fn put(&mut self, id: String, mut slot: Slot) {
        self.generation += u64::from(slot.renew());
        let bytes = slot.bytes();
        self.by_id.insert(id, slot, bytes);
    }

    /// The container whose id, of 64 digits, is `id`.
    pub fn by_id(&mut self, id: &str) -> Option<Arc<Container>> {
        if !is_hex64(id) {
            return None;
        }
        if let Some(slot) = self.by_id.get(id) {
            slot.is_asked = true;
            return slot.known.clone();
        }
        self.put(id.to_owned(), Slot { is_asked: true, ..Slot::default() });
        None
    }

    /// The first process of the container whose id, of 64 digits, is `id`, as its runtime has written it
    /// down: root's before users', and that with its start before others.
    pub fn init(&mut self, id: &str) -> Option<Init> {
        let entries = self.by_id.get(id)?.entries.iter();
        let inits = entries.filter_map(|entry| Some((entry.is_users(), entry.init()?)));
        let best = inits.min_by_key(|(is_users, init)| (*is_users, init.start_ticks.is_none()));
        best.map(|(_, init)| init)
    }

    /// Whether others than this user have a container whose id, of 64 digits, is `id`.
    pub fn is_others(&mut self, id: &str, user: u32) -> bool {
        let is_others = |entry: &Entry| entry.metadata.user != Some(user);
        is_hex64(id) && self.by_id.get(id).is_some_and(|slot| slot.entries.iter().any(is_others))
    }

    /// Whether files say whose the cgroup is, be it one container's or several's.
    pub fn is_claimed(&mut self, key: CgroupKey) -> bool {
        self.by_cgroup.get(&key).is_some()
    }

    /// The container that owns the cgroup, where its state says so and nobody else's does. A user's
    /// word does not count against root's.
    pub fn by_cgroup(&mut self, key: CgroupKey) -> Option<Arc<Container>> {
        let entries = self.by_cgroup.get(&key)?;
        let best = best(entries)?;
        let is_rival = |entry: &&Entry| entry.is_users() == best.is_users();
        let is_best = |entry: &Entry| is_same_container(entry, best);
        let best = entries.iter().filter(is_rival).all(is_best).then(|| best.clone())?;
        // A low-level runtime's state: the engine that made the bundle knows more.
        let engine = best.metadata.bundle.as_ref().and_then(|_| {
            let entries = &self.by_id.get(&best.container.id)?.entries;
            let of_bundle = |entry: &&Entry| is_same_container(entry, &best);
            entries.iter().filter(of_bundle).min_by_key(|entry| entry.order())
        });
        Some(engine.map_or(best.container, |entry| entry.container.clone()))
    }

    /// What the files say of the container `id`, the best first. Of an id in free text, which
    /// several containers may have, what they say of the one that owns the cgroup, or else of those
    /// of its runtime.
    pub fn entries_of(&mut self, id: &str, runtime: Option<Runtime>, key: CgroupKey) -> Vec<Entry> {
        let by_id = self.by_id.get(id).map_or_else(Vec::new, |slot| slot.entries.clone());
        let mut told = by_id;
        if !is_hex64(id) {
            let of_cgroup: &[Entry] = self.by_cgroup.get(&key).map_or(&[], |entries| entries);
            told.retain(|entry| match of_cgroup {
                [] => entry.container.runtime == runtime,
                owners => owners.iter().any(|owner| is_same_container(owner, entry)),
            });
        }
        told.sort_by_key(Entry::order);
        told
    }

    /// All that the files say.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values().flat_map(|slot| &slot.entries)
    }

    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.by_id.values().filter_map(|slot| slot.known.as_deref())
    }
}

impl Entry {
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub fn init(&self) -> Option<Init> {
        self.metadata.init
    }

    /// What it did when the file was written.
    pub fn state(&self) -> Option<State> {
        self.metadata.state
    }

    /// The best first: what only root can have written, a name, then the backend that knows more.
    pub fn order(&self) -> (bool, bool, usize) {
        (self.is_users(), self.container.name.is_none(), self.rank)
    }

    /// A user may have written it.
    fn is_users(&self) -> bool {
        self.metadata.user.is_some()
    }

    pub fn source(&self) -> &Path {
        &self.metadata.source
    }
}

fn best(entries: &[Entry]) -> Option<&Entry> {
    entries.iter().min_by_key(|entry| entry.order())
}

fn is_same_container(one: &Entry, other: &Entry) -> bool {
    let bundle = |entry: &Entry| entry.metadata.bundle.clone();
    one.container.id == other.container.id
        && one.metadata.user == other.metadata.user
        && (one.source() == other.source()
            || (bundle(one).is_some() && bundle(one) == bundle(other)))
}

/// `entries` with `entry` in the place of what the same file said of the same container before;
/// `None` where that is nothing new.
fn merged(entries: &[Entry], entry: &Entry) -> Option<Vec<Entry>> {
    if entries.contains(entry) {
        return None;
    }
    let mut entries = entries.to_vec();
    // The same directory may be root's, and named by a user as his: his does not replace root's.
    let is_older = |old: &Entry| {
        old.source() == entry.source()
            && old.container.id == entry.container.id
            && old.is_users() == entry.is_users()
    };
    entries.retain(|old| !is_older(old));
    entries.push(entry.clone());
    Some(entries)
}

/// The cgroups of a container that is running now. A kernfs id is the inode of the directory and is
/// never used again (Linux 5.5 and later, 64-bit), so that the key stays true for late events.
fn keys_of(metadata: &Metadata, cgroups: &dyn CgroupFs) -> Vec<CgroupKey> {
    let directories = match &metadata.placement {
        Placement::Unsaid => return Vec::new(),
        Placement::Mounted(directories) => directories.clone(),
        Placement::InHierarchies(path) => {
            let below = path.trim_start_matches('/');
            cgroups.mounts().into_iter().map(|(_, mount)| mount.join(below)).collect()
        }
    };
    // A state that outlived its container names cgroups that may be another's by now.
    if metadata.first_process().is_some_and(|init| !init.is_running()) {
        return Vec::new();
    }
    let key = |directory: &PathBuf| {
        let key = cgroups.key_of_directory(directory)?;
        let Some(user) = metadata.user else { return Some(key) };
        // A user's word is good for the cgroups that were given to him.
        let found = directory.symlink_metadata().ok()?;
        (user != 0 && found.uid() == user && found.ino() == key.id).then_some(key)
    };
    directories.iter().filter_map(key).collect()
}

/// About what an entry takes.
fn size_of_entry(entry: &Entry) -> usize {
    let container = size_of_container(&entry.container);
    size_of::<Entry>() + container + entry.source().as_os_str().len()
}

/// About what a container takes; a node of a map has its own cost.
fn size_of_container(container: &Container) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let map = |map: &BTreeMap<String, String>| -> usize {
        map.iter().map(|(key, value)| key.len() + value.len() + 64).sum()
    };
    let Container { id, name, runtime: _, image, labels, pod, is_sandbox: _ } = container;
    let pod = pod.as_ref().map_or(0, |pod| {
        let Pod { name, namespace, uid, labels } = pod;
        text(name) + text(namespace) + text(uid) + labels.as_ref().map_or(0, map)
    });
    size_of::<Container>() + id.len() + text(name) + text(image) + map(labels) + pod
}
