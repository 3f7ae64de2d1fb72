//! From a cgroup to its container.
//!
//! An event names cgroups by hierarchy and kernfs id. The path of each is known from the record that
//! the kernel side sends before the event, or from the file system while the cgroup lives. The path
//! is searched for containers ([`cgroup`]), and what the runtimes keep on disk about them
//! ([`runtime`]) is read ahead of the events (`watch`, `staged`), because it is gone soon after a
//! container is.
//!
//! Invariants:
//! - What is not known is said as not known, in [`Attribution::via`]; nothing is guessed.
//! - A container whose id is free text is only claimed by the identity of its cgroup: the kernfs id
//!   that was seen on disk where its runtime's state says its cgroup is, while it ran.
//! - Nothing here fails an event: an unreadable file is an unknown container.

mod bounded;
pub mod cgroup;
mod nodes;
mod resolve;
pub mod runtime;
mod staged;
mod watch;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub use runtime::roots::Roots;

use crate::event::{CgroupKey, Container, Via, matches};
use nodes::Nodes;
use resolve::Resolution;
use runtime::{Backend, Lookup, Metadata};
use staged::Staged;
use watch::{Watcher, Written};

/// Who an event belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribution {
    /// The cgroup that the answer is from, and its path; where that path is not known, another of the
    /// cgroups whose path is.
    pub path: Option<(CgroupKey, Arc<str>)>,
    /// The innermost container.
    pub container: Option<Arc<Container>>,
    /// The containers around it, outermost first.
    pub outer: Vec<Arc<Container>>,
    /// How the container is known, or that there is none.
    pub via: Via,
    /// The host's systemd unit that the cgroup is in, where it is no container's.
    pub unit: Option<String>,
}

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

/// A store's backend, and how good its answers are: 0 is the best.
type Rank = usize;

/// Knows which container a cgroup is. Synchronous and for one thread.
pub struct Attributor {
    cgroups: Box<dyn CgroupFs>,
    backends: Vec<Box<dyn Backend>>,
    /// Backend and number of each store that is watched.
    stores: Vec<(Rank, usize)>,
    nodes: Nodes,
    staged: Staged,
    watcher: Watcher,
    unreadable: u64,
}

impl Attributor {
    /// Watches the directories of this host's runtimes and reads all metadata that is there.
    pub fn new(cgroups: impl CgroupFs + 'static) -> Self {
        Self::with_roots(cgroups, &Roots::discover())
    }

    /// As [`Attributor::new`], with the runtimes' directories given.
    pub fn with_roots(cgroups: impl CgroupFs + 'static, roots: &Roots) -> Self {
        let cgroups = Box::new(cgroups);
        let backends = runtime::backends(roots);
        let mut stores = Vec::new();
        for (rank, backend) in backends.iter().enumerate() {
            stores.extend((0..backend.stores().len()).map(|store| (rank, store)));
        }
        let watched = stores.iter().map(|&(rank, store)| backends[rank].stores()[store].clone());
        let (watcher, written) = Watcher::new(watched.collect());
        let (nodes, staged) = (Nodes::new(), Staged::new());
        let mut this = Self { cgroups, backends, stores, nodes, staged, watcher, unreadable: 0 };
        this.read(written);
        this
    }

    /// Reads the metadata that was written since, until there is no more.
    pub fn on_readable(&mut self) {
        let written = self.watcher.drain();
        self.read(written);
    }

    /// Why some metadata is only read when an event asks for it, if so.
    pub fn watch_refused(&self) -> Option<&io::Error> {
        self.watcher.refused()
    }

    /// Times that inotify's queue was full, and all metadata was read again.
    pub fn watch_overflows(&self) -> u64 {
        self.watcher.overflows()
    }

    /// Files of metadata that could not be read or parsed.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
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

    /// The path of a cgroup, where it is known from its root.
    pub fn path(&mut self, key: CgroupKey) -> Option<Arc<str>> {
        let node = self.nodes.look_up(key, &*self.cgroups)?;
        node.complete.then(|| node.path.clone())
    }

    /// Says whose `cgroups` are: those of one task or object, in order of preference.
    ///
    /// A container beats a unit. Of two containers the inner one wins where the other is around it,
    /// else that of the first cgroup. `now` bounds how often the disk is asked for what it did not
    /// have.
    pub fn resolve(&mut self, cgroups: &[CgroupKey], now: Instant) -> Attribution {
        let mut answers = cgroups.iter().map(|key| self.resolve_one(*key, now));
        let Some(first) = answers.next() else { return unknown() };
        answers.fold(first, better)
    }

    /// Whether there is a container that `selector` [means](crate::event::matches()).
    pub fn known(&self, selector: &str) -> bool {
        self.staged.containers().any(|container| matches(container, selector))
    }

    fn resolve_one(&mut self, key: CgroupKey, now: Instant) -> Attribution {
        let Some(node) = self.nodes.look_up(key, &*self.cgroups).map(|node| node.clone()) else {
            return unknown();
        };
        let old = node.resolution.clone();
        let is_due = old.as_ref().is_none_or(|old| old.is_due(now));
        let is_fresh = |old: &Arc<Resolution>| old.generation == self.staged.generation();
        let resolution = match old.clone().filter(is_fresh) {
            Some(old) if !is_due => old,
            _ => {
                if is_due {
                    for id in resolve::missing(&node, key, &mut self.staged) {
                        self.look_up(&id);
                    }
                }
                let retry = old.as_ref().and_then(|old| old.retry);
                let mut new =
                    resolve::resolve(&node, key, &mut self.staged, now, retry.map(|retry| retry.1));
                if !is_due && new.retry.is_some() {
                    new.retry = retry;
                }
                let new = Arc::new(new.keep(old.as_deref()));
                if let Some(node) = self.nodes.get(key) {
                    node.resolution = Some(new.clone());
                }
                new
            }
        };
        attribution(key, &node, &resolution)
    }

    /// Asks all backends for `id`.
    fn look_up(&mut self, id: &str) {
        let answers: Vec<(Rank, Lookup)> = self
            .backends
            .iter()
            .map(|backend| runtime::lookup(&**backend, id))
            .enumerate()
            .collect();
        for (rank, answer) in answers {
            self.take(rank, answer);
        }
    }

    fn read(&mut self, written: Vec<Written>) {
        for Written { store, path } in written {
            let (rank, store) = self.stores[store];
            let backend = &*self.backends[rank];
            let answer = runtime::read(backend, &backend.stores()[store], &path);
            self.take(rank, answer);
        }
    }

    fn take(&mut self, rank: Rank, answer: Lookup) {
        match answer {
            Lookup::Found(found) => {
                for metadata in found {
                    self.stage(rank, metadata);
                }
            }
            Lookup::Unknown => {}
            Lookup::Unreadable(_) => self.unreadable += 1,
        }
    }

    fn stage(&mut self, rank: Rank, metadata: Metadata) {
        self.staged.stage(rank, metadata, &*self.cgroups);
    }
}

/// Becomes readable when a runtime writes metadata: then call [`Attributor::on_readable`].
impl AsRawFd for Attributor {
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}

fn attribution(key: CgroupKey, node: &nodes::Node, resolution: &Resolution) -> Attribution {
    let unit = node.complete.then(|| cgroup::unit(&node.path)).flatten().map(Into::into);
    let via = match resolution.chain.last() {
        Some(known) if known.from_metadata => Via::Cgroup,
        Some(_) => Via::CgroupPath,
        None if resolution.is_helper => Via::RuntimeHelper,
        None if unit.is_some() => Via::Unit,
        None if node.complete && cgroup::is_plain_host(&node.path) => Via::Host,
        None => Via::Unknown,
    };
    let mut outer: Vec<Arc<Container>> =
        resolution.chain.iter().map(|known| known.container.clone()).collect();
    let container = outer.pop();
    let path = node.complete.then(|| (key, node.path.clone()));
    let unit = unit.filter(|_| container.is_none());
    Attribution { path, container, outer, via, unit }
}

fn unknown() -> Attribution {
    let (path, container, outer, unit) = (None, None, Vec::new(), None);
    Attribution { path, container, outer, via: Via::Unknown, unit }
}

/// The answer to give where `other` is that of a less preferred cgroup.
fn better(first: Attribution, other: Attribution) -> Attribution {
    let is_other = match (&first.container, &other.container) {
        (Some(around), Some(_)) => other.outer.iter().any(|outer| outer.id == around.id),
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (None, None) => precedence(&other) > precedence(&first),
    };
    let (answer, rest) = if is_other { (other, first) } else { (first, other) };
    if answer.path.is_some() {
        return answer;
    }
    Attribution { path: rest.path, unit: answer.unit.or(rest.unit), ..answer }
}

/// Which answer without a container to give. One unknown cgroup is enough not to know: an older runc
/// does not join the v2 hierarchy, whose cgroup is then another's, and a host's by its looks.
fn precedence(answer: &Attribution) -> u8 {
    match answer.via {
        Via::RuntimeHelper => 4,
        Via::Unknown if answer.path.is_some() => 3,
        Via::Unknown => 2,
        Via::Unit => 1,
        Via::Host | Via::Cgroup | Via::CgroupPath => 0,
    }
}

#[cfg(test)]
mod tests;
