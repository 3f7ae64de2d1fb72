//! From what an event tells to its container.
//!
//! An event names cgroups by hierarchy and kernfs id, and a mount namespace. The tree of cgroups is
//! known from the kernel's own records of what comes and goes, from a walk at start-up, and from the
//! file system while a cgroup lives (`nodes`). The path of each is searched for containers
//! (`cgroup`), and what the runtimes keep on disk about them ([`runtime`]) is read ahead of the
//! events (`catalog`), because it is gone soon after a container is. Where no cgroup names a
//! container, the mount namespace may (`namespaces`), or its mounts (`mountinfo`), or a process
//! that this one descends from.
//!
//! Invariants:
//! - What is not known is said as not known, in [`Attribution::via`]; nothing is guessed.
//! - A container whose id is free text is only claimed by the identity of its cgroup: the kernfs id
//!   that was seen on disk where its runtime's state says its cgroup is, while it ran.
//! - Nothing here fails an event: an unreadable file is an unknown container.
//! - [`Attributor::recall`] touches neither disk nor heap. [`Attributor::resolve`] may read files, at
//!   most a few times for each new cgroup or namespace, never a walk.

mod answer;
mod bounded;
mod by_process;
mod catalog;
pub mod cgroup;
mod identity;
mod inits;
pub mod inventory;
mod mountinfo;
mod namespaces;
mod nodes;
mod resolve;
pub mod runtime;
mod staged;
mod walk;
mod watch;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

pub use identity::{Identity, Kinship, ProcessKey};
pub use runtime::roots::Roots;

use crate::event::{Attribution, CgroupKey, Container, Via, matches};
use bounded::Bounded;
use catalog::Catalog;
use cgroup::is_hex64;
use inits::Inits;
use namespaces::Namespaces;
use nodes::Nodes;
use resolve::Resolution;
use runtime::roots::discovery::Discovery;

/// Identities whose answers are kept; then all are forgotten, and found again as they come.
const MAX_RECALLED: usize = 32 << 10;
/// Processes outside containers' cgroups that are remembered for their children.
const MAX_PROCESSES: usize = 8 << 10;

/// How long runtimes are not looked for again, nanoseconds.
const DISCOVERY_MIN_NS: u64 = 1_000_000_000;
const DISCOVERY_MAX_NS: u64 = 60_000_000_000;
/// How long users' directories are waited for at start-up.
const DISCOVERY_WAIT: Duration = Duration::from_secs(1);

/// The cgroup file systems of this host.
pub trait CgroupFs {
    /// The path of a living cgroup below its hierarchy's root, with a leading slash.
    fn path_of_id(&self, hierarchy: u32, id: u64) -> Option<String>;

    /// Each hierarchy and where it is mounted.
    fn mounts(&self) -> Vec<(u32, PathBuf)>;

    /// The id of the living cgroup at `path` below its hierarchy's root; none for the root itself.
    fn id_of_path(&self, hierarchy: u32, path: &str) -> Option<u64> {
        let (_, mount) = self.mounts().into_iter().find(|mount| mount.0 == hierarchy)?;
        Some(self.key_of_directory(&mount.join(path.trim_start_matches('/')))?.id)
    }

    /// The cgroup whose directory is `directory`; none for the root of a hierarchy.
    fn key_of_directory(&self, directory: &Path) -> Option<CgroupKey> {
        let is_plain = |part: Component| matches!(part, Component::RootDir | Component::Normal(_));
        if !directory.components().all(is_plain) {
            return None;
        }
        let below = |mount: &(u32, PathBuf)| directory.starts_with(&mount.1);
        let depth = |mount: &(u32, PathBuf)| mount.1.components().count();
        let (hierarchy, mount) = self.mounts().into_iter().filter(below).max_by_key(depth)?;
        let metadata = directory.symlink_metadata().ok().filter(|_| directory != mount)?;
        metadata.is_dir().then(|| CgroupKey { hierarchy, id: metadata.ino() })
    }
}

/// An answer that was given.
struct Recalled {
    attribution: Arc<Attribution>,
    /// [`Attributor::epoch`] that it was made in.
    epoch: u64,
    /// When to look again, nanoseconds since boot.
    until: u64,
}

/// Knows which container a cgroup is. Synchronous and for one thread. Times are nanoseconds since
/// boot.
pub struct Attributor {
    cgroups: Box<dyn CgroupFs>,
    catalog: Catalog,
    nodes: Nodes,
    namespaces: Namespaces,
    inits: Inits,
    /// Processes whose cgroups do not tell, for their children.
    processes: Bounded<ProcessKey, Arc<Attribution>>,
    recalled: FxHashMap<Identity, Recalled>,
    /// Inode of the host's mount namespace.
    host_mnt_ns: u32,
    /// No metadata was found of a container.
    is_runtime_missing: bool,
    /// When runtimes may be looked for again, and how long that was waited for.
    discovery: (u64, u64),
    /// Where their directories are.
    homes: Discovery,
}

impl Attributor {
    /// Watches the directories of this host's runtimes and reads all metadata that is there.
    /// `host_mnt_ns`: inode of the host's mount namespace.
    pub fn new(cgroups: impl CgroupFs + 'static, host_mnt_ns: u32) -> Self {
        let mut homes = Discovery::default();
        homes.begin();
        homes.has_ended(DISCOVERY_WAIT);
        let this = Self::with_roots(cgroups, host_mnt_ns, &homes.roots());
        Self { homes, ..this }
    }

    /// As [`Attributor::new`], with the runtimes' directories given.
    pub fn with_roots(cgroups: impl CgroupFs + 'static, host_mnt_ns: u32, roots: &Roots) -> Self {
        let catalog = Catalog::new(roots.clone(), &cgroups);
        Self {
            cgroups: Box::new(cgroups),
            catalog,
            nodes: Nodes::default(),
            namespaces: Namespaces::new(),
            inits: Inits::default(),
            processes: Bounded::new(MAX_PROCESSES, usize::MAX),
            recalled: FxHashMap::default(),
            host_mnt_ns,
            is_runtime_missing: false,
            discovery: (0, DISCOVERY_MIN_NS),
            homes: Discovery::default(),
        }
    }

    /// Reads the metadata that was written since, until there is no more.
    pub fn on_readable(&mut self) {
        self.catalog.on_readable(&*self.cgroups);
    }

    /// Looks for the runtimes' directories again, where a container is here whose runtime has not been
    /// found: it may have been started since, with a directory of its own. Takes some milliseconds,
    /// and so is done ever more seldom while it is in vain.
    pub fn rediscover(&mut self, now: u64) {
        let (at, wait) = self.discovery;
        let is_due = self.is_runtime_missing && now >= at;
        if is_due {
            self.is_runtime_missing = false;
            self.homes.begin();
        }
        if !self.homes.has_ended(Duration::ZERO) && !is_due {
            return;
        }
        let is_found = self.catalog.set_roots(self.homes.roots(), &*self.cgroups);
        if is_found {
            self.discovery = (now + DISCOVERY_MIN_NS, DISCOVERY_MIN_NS);
        } else if is_due {
            let wait = (2 * wait).min(DISCOVERY_MAX_NS);
            self.discovery = (now + wait, wait);
        }
    }

    /// Why some metadata is only read when an event asks for it, if so.
    pub fn watch_refused(&self) -> Option<&io::Error> {
        self.catalog.watch_refused()
    }

    /// Times that inotify's queue was full, and all metadata was read again.
    pub fn watch_overflows(&self) -> u64 {
        self.catalog.watch_overflows()
    }

    /// Files of metadata that could not be read or parsed.
    pub fn unreadable(&self) -> u64 {
        self.catalog.unreadable()
    }

    /// Walks all hierarchies: at start-up, once the hooks are in place, and where records of what
    /// came and went were lost. `now`: before the walk.
    pub fn walk(&mut self, now: u64) {
        let mut seen = FxHashSet::default();
        let mounts = self.cgroups.mounts();
        for (hierarchy, mount) in &mounts {
            walk::walk(*hierarchy, mount, &mut |found| {
                let walk::Found { key, parent, level, name } = found;
                self.nodes.upsert(key, parent, Some(level), name);
                seen.insert(key);
            });
        }
        let hierarchies: Vec<u32> = mounts.iter().map(|mount| mount.0).collect();
        self.nodes.retain_seen(&seen, &hierarchies, now);
    }

    /// A cgroup was made or renamed. `level`: below the root.
    pub fn made(&mut self, key: CgroupKey, parent: u64, level: u32, name: &[u8]) {
        self.nodes.upsert(key, parent, Some(level), name);
    }

    /// A cgroup's directory was removed. The record names it as that of its making did.
    pub fn removed(&mut self, key: CgroupKey, parent: u64, level: u32, name: &[u8]) {
        self.nodes.upsert(key, parent, Some(level), name);
        self.nodes.removed(key);
    }

    /// The kernel has freed a cgroup.
    pub fn released(&mut self, key: CgroupKey, time_ns: u64) {
        self.nodes.released(key, time_ns);
    }

    /// Takes in a cgroup's path from the kernel side: the cgroup's own level first, with the ids of
    /// all levels. `truncated`: there are levels above the last one.
    pub fn learn<'n>(
        &mut self,
        hierarchy: u32,
        ids_leaf_first: &[u64],
        names_leaf_first: impl IntoIterator<Item = &'n [u8]>,
        truncated: bool,
    ) {
        let names = &mut names_leaf_first.into_iter();
        self.nodes.learn(hierarchy, ids_leaf_first, names, truncated);
    }

    /// All that happened before `drained_ns` has been taken out of the rings: what has been gone for
    /// long may be forgotten.
    pub fn forget(&mut self, drained_ns: u64) {
        self.nodes.bury(drained_ns);
    }

    /// The path of a cgroup, where it is known from its root.
    pub fn path(&mut self, key: CgroupKey) -> Option<Arc<str>> {
        let path = self.nodes.path(key, &*self.cgroups)?;
        path.is_complete.then(|| path.text.clone())
    }

    /// The answer of [`Attributor::resolve`], where it was given before and is still true.
    pub fn recall(&self, who: &Identity, now: u64) -> Option<Arc<Attribution>> {
        let recalled = self.recalled.get(who)?;
        let is_true = recalled.epoch == self.epoch() && now < recalled.until;
        is_true.then(|| recalled.attribution.clone())
    }

    /// Says whose `who` is. All of the lifecycle ring and of the metadata should have been taken in.
    ///
    /// Cgroups come first, in order of preference, then the mount namespace, then the processes that
    /// this one descends from.
    pub fn resolve(&mut self, who: &Identity, kin: Kinship, now: u64) -> Arc<Attribution> {
        let (mut answer, mut until) = self.of_cgroups(who, now);
        let is_host = who.mnt_ns.inode.is_none_or(|inode| inode == self.host_mnt_ns);
        let is_in_host = is_host && who.mnt_ns.inode.is_some();
        if answer.container.is_some() {
            self.place(&mut answer, who, is_in_host, now);
        } else if who.is_kernel_thread {
            answer.via = Via::Kernel;
        } else if !is_host && answer.via != Via::RuntimeHelper {
            if let Some(found) = self.of_namespace(who, kin, now) {
                answer = Attribution { path: answer.path, ..found };
            } else if let Some(found) = self.of_kin(kin) {
                answer = Attribution { path: answer.path, via: Via::Lineage, ..found };
            } else if who.is_pid_nested
                && !who.mnt_ns.id.is_some_and(|id| self.namespaces.is_read(id))
            {
                // As a container that was told to have no cgroup of its own; nobody is left to ask.
                answer.via = Via::Unknown;
            }
            let retry = who.mnt_ns.id.map(|id| self.namespaces.retry_at(id));
            until = until.min(retry.unwrap_or(u64::MAX));
        }
        let attribution = Arc::new(answer);
        if matches!(attribution.via, Via::Mountinfo | Via::Lineage) {
            // The process itself counts, and its children will ask for it.
            if let Some(process) = kin.process {
                self.processes.insert(process, attribution.clone(), 1);
            }
            return attribution;
        }
        if self.recalled.len() >= MAX_RECALLED {
            self.recalled.clear();
        }
        let recalled = Recalled { attribution: attribution.clone(), epoch: self.epoch(), until };
        self.recalled.insert(*who, recalled);
        attribution
    }

    /// Takes in what a runtime said of a container when it was asked at its socket.
    pub fn tell(&mut self, container: Container) {
        self.catalog.staged.tell(container);
    }

    /// Whether there is a container that `selector` [means](crate::event::matches()): in the runtimes'
    /// files, or else in the names of the cgroups, which are walked then.
    pub fn known(&mut self, selector: &str, now: u64) -> bool {
        if self.catalog.staged.containers().any(|container| matches(container, selector)) {
            return true;
        }
        self.walk(now);
        let living = self.living();
        living
            .into_iter()
            .filter_map(|key| self.own(key))
            .any(|own| matches(&own.container, selector))
    }

    /// What a cgroup says, by itself.
    pub fn of_place(&mut self, key: CgroupKey, now: u64) -> Attribution {
        self.of_cgroup(key, now).0
    }

    /// What a mount namespace says, by itself; absent where nothing is known of it.
    pub fn of_mnt_ns(&mut self, id: u64, now: u64) -> Option<Attribution> {
        self.claimed(Some(id), now).map(|(answer, _)| answer)
    }

    /// Grows when an answer that was given may be another now.
    pub fn epoch(&self) -> u64 {
        self.nodes.epoch() + self.catalog.staged.generation() + self.namespaces.epoch()
    }

    /// What the cgroups say, and until when.
    fn of_cgroups(&mut self, who: &Identity, now: u64) -> (Attribution, u64) {
        let mut until = u64::MAX;
        let mut best: Option<Attribution> = None;
        for key in who.cgroups() {
            let (answer, retry) = self.of_cgroup(key, now);
            until = until.min(retry);
            best = Some(match best {
                None => answer,
                Some(first) => {
                    let is_torn = first.container.is_some() && answer.container.is_some();
                    let claimed = if is_torn { self.claimed(who.mnt_ns.id, now) } else { None };
                    let claimed = claimed.and_then(|(claimed, _)| claimed.container);
                    let id = claimed.as_ref().map(|container| container.id.as_str());
                    answer::better(first, answer, id)
                }
            });
        }
        (best.unwrap_or_default(), until)
    }

    /// What one cgroup says, and until when.
    fn of_cgroup(&mut self, key: CgroupKey, now: u64) -> (Attribution, u64) {
        let Some(path) = self.nodes.path(key, &*self.cgroups) else {
            return (Attribution::default(), u64::MAX);
        };
        let old = self.nodes.resolution(key);
        let is_due = old.as_ref().is_none_or(|old| old.is_due(now));
        let is_fresh = |old: &Arc<Resolution>| old.generation == self.catalog.staged.generation();
        let resolution = match old.clone().filter(is_fresh) {
            Some(old) if !is_due => old,
            _ => {
                let staged = &mut self.catalog.staged;
                if is_due {
                    for id in resolve::missing(&path, key, staged) {
                        self.catalog.look_up(&id, &*self.cgroups);
                    }
                }
                let retry = old.as_ref().and_then(|old| old.retry);
                let staged = &mut self.catalog.staged;
                let waited = retry.map(|retry| retry.1);
                let mut new = resolve::resolve(&path, key, staged, old.as_deref(), now, waited);
                self.is_runtime_missing |= is_due && new.is_runtime_missing();
                // What was known and is forgotten is looked up again.
                if !is_due && new.retry.is_some() && retry.is_some() {
                    new.retry = retry;
                }
                let new = Arc::new(new);
                self.nodes.set_resolution(key, new.clone());
                new
            }
        };
        let until = resolution.retry.map_or(u64::MAX, |retry| retry.0);
        (answer::of_cgroup(key, &path, &resolution), until)
    }
}

/// Becomes readable when a runtime writes metadata: then call [`Attributor::on_readable`].
impl AsRawFd for Attributor {
    fn as_raw_fd(&self) -> RawFd {
        self.catalog.as_raw_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests;
