//! The runtimes' metadata: read when it is written, and asked for where it was not.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::CgroupFs;
use super::runtime::roots::Roots;
use super::runtime::{self, Backend, Lookup, Store};
use super::staged::Staged;
use super::watch::{Watcher, Written};

/// A store's backend, and how good its answers are: 0 is the best.
type Rank = usize;
/// Backend and number of each store that is watched.
type Stores = Vec<(Rank, usize)>;

/// How long users' files are read at start-up, and later before what root's runtimes wrote is looked
/// at again. At least one is read.
const USERS_TIME_AT_START: Duration = Duration::from_secs(1);
const USERS_TIME: Duration = Duration::from_millis(5);
/// Users' files that wait to be read.
const MAX_WAITING: usize = 16 << 10;

pub struct Catalog {
    roots: Roots,
    backends: Vec<Box<dyn Backend>>,
    pub staged: Staged,
    system: Watched,
    /// On a queue of their own: a user can overflow it.
    users: Watched,
    /// Users' files that are not read yet.
    waiting: BTreeSet<Written>,
    unreadable: u64,
}

/// Stores and who watches them.
struct Watched {
    stores: Stores,
    watcher: Watcher,
}

impl Catalog {
    /// Watches the runtimes' directories and reads all metadata that is there.
    pub fn new(roots: Roots, cgroups: &dyn CgroupFs) -> Self {
        let backends = runtime::backends(&roots);
        let (system, written) = Watched::new(&backends, false);
        let (users, users_written) = Watched::new(&backends, true);
        let (staged, waiting) = (Staged::new(), BTreeSet::new());
        let mut this = Self { roots, backends, staged, system, users, waiting, unreadable: 0 };
        this.read(written, cgroups);
        this.read_users(users_written, USERS_TIME_AT_START, cgroups);
        this
    }

    /// Watches these directories instead, and reads all that is there; returns whether they are
    /// others. What was read stays.
    pub fn set_roots(&mut self, roots: Roots, cgroups: &dyn CgroupFs) -> bool {
        if roots == self.roots {
            return false;
        }
        self.backends = runtime::backends(&roots);
        self.roots = roots;
        let written = self.system.renew(&self.backends, false);
        self.read(written, cgroups);
        self.waiting.clear();
        let written = self.users.renew(&self.backends, true);
        self.read_users(written, USERS_TIME, cgroups);
        true
    }

    /// Reads the metadata that was written since, until there is no more. Of users' a part at a time.
    pub fn on_readable(&mut self, cgroups: &dyn CgroupFs) {
        let written = self.system.watcher.drain();
        self.read(written, cgroups);
        let written = self.users.watcher.drain();
        self.read_users(written, USERS_TIME, cgroups);
    }

    /// Asks all backends for `id`.
    pub fn look_up(&mut self, id: &str, cgroups: &dyn CgroupFs) {
        let answers: Vec<(Rank, Lookup)> = self
            .backends
            .iter()
            .map(|backend| runtime::lookup(&**backend, id))
            .enumerate()
            .collect();
        for (rank, answer) in answers {
            // What cannot be read was counted when it was written.
            self.take(rank, answer, cgroups);
        }
    }

    /// Why some metadata is only read when an event asks for it, if so.
    pub fn watch_refused(&self) -> Option<&io::Error> {
        self.system.watcher.refused().or_else(|| self.users.watcher.refused())
    }

    /// Times that inotify's queue was full, and all metadata was read again.
    pub fn watch_overflows(&self) -> u64 {
        self.system.watcher.overflows() + self.users.watcher.overflows()
    }

    /// Times that a file of metadata could not be read or parsed, or had to be left out.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    fn read(&mut self, written: Vec<Written>, cgroups: &dyn CgroupFs) {
        for Written { store, path, is_young } in written {
            let (rank, store) = self.system.stores[store];
            self.read_one((rank, store), &path, is_young, cgroups);
        }
    }

    /// Reads users' files for so long; the rest waits.
    fn read_users(&mut self, written: Vec<Written>, time: Duration, cgroups: &dyn CgroupFs) {
        let begun = Instant::now();
        self.waiting.extend(written);
        while let Some(Written { store, path, is_young }) = self.waiting.pop_first() {
            let (rank, store) = self.users.stores[store];
            self.read_one((rank, store), &path, is_young, cgroups);
            if begun.elapsed() >= time {
                break;
            }
        }
        while self.waiting.len() > MAX_WAITING {
            self.waiting.pop_last();
            self.unreadable += 1;
        }
    }

    fn read_one(
        &mut self,
        (rank, store): (Rank, usize),
        path: &Path,
        is_young: bool,
        cgroups: &dyn CgroupFs,
    ) {
        let backend = &*self.backends[rank];
        let answer = runtime::read(backend, &backend.stores()[store], path);
        let is_unreadable = matches!(answer, Lookup::Unreadable(_));
        self.unreadable += u64::from(is_unreadable && !is_young);
        self.take(rank, answer, cgroups);
    }

    fn take(&mut self, rank: Rank, answer: Lookup, cgroups: &dyn CgroupFs) {
        match answer {
            Lookup::Found(found) => {
                for metadata in found {
                    self.staged.stage(rank, metadata, cgroups);
                }
            }
            Lookup::Unknown | Lookup::Unreadable(_) => {}
        }
    }
}

impl Watched {
    /// Watches the stores of `backends` that are users', or those that are not; the files that are
    /// there come back as written.
    fn new(backends: &[Box<dyn Backend>], is_users: bool) -> (Self, Vec<Written>) {
        let (stores, list) = stores(backends, is_users);
        let (watcher, written) = Watcher::new(list);
        (Self { stores, watcher }, written)
    }

    /// Watches these instead.
    fn renew(&mut self, backends: &[Box<dyn Backend>], is_users: bool) -> Vec<Written> {
        let (stores, list) = stores(backends, is_users);
        self.stores = stores;
        self.watcher.set_stores(list)
    }
}

fn stores(backends: &[Box<dyn Backend>], is_users: bool) -> (Stores, Vec<Store>) {
    let of = |rank: Rank| {
        let stores = backends[rank].stores().iter().cloned().enumerate();
        stores.map(move |(number, store)| ((rank, number), store))
    };
    let all = (0..backends.len()).flat_map(of);
    all.filter(|(_, store)| store.is_users == is_users).unzip()
}

/// Readable when a runtime of root's writes; users' files are read whenever
/// [`Catalog::on_readable`] is called.
impl AsRawFd for Catalog {
    fn as_raw_fd(&self) -> RawFd {
        self.system.watcher.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
