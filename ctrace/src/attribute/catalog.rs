//! The runtimes' metadata: read when it is written, and asked for where it was not.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::CgroupFs;
use super::runtime::roots::Roots;
use super::runtime::{self, Backend, Lookup, Store};
use super::staged::Staged;
use super::watch::{Watcher, Written};

/// A store's backend, and how good its answers are: 0 is the best.
type Rank = usize;
/// Backend and number of each store that is watched.
type Stores = Vec<(Rank, usize)>;

pub struct Catalog {
    roots: Roots,
    backends: Vec<Box<dyn Backend>>,
    stores: Stores,
    pub staged: Staged,
    watcher: Watcher,
    unreadable: u64,
}

impl Catalog {
    /// Watches the runtimes' directories and reads all metadata that is there.
    pub fn new(roots: Roots, cgroups: &dyn CgroupFs) -> Self {
        let (backends, stores) = with_stores(&roots);
        let (watcher, written) = Watcher::new(files_of(&backends, &stores));
        let staged = Staged::new();
        let mut this = Self { roots, backends, stores, staged, watcher, unreadable: 0 };
        this.read(written, cgroups);
        this
    }

    /// Watches these directories instead, and reads all that is there; returns whether they are
    /// others. What was read stays.
    pub fn set_roots(&mut self, roots: Roots, cgroups: &dyn CgroupFs) -> bool {
        if roots == self.roots {
            return false;
        }
        (self.backends, self.stores) = with_stores(&roots);
        self.roots = roots;
        let written = self.watcher.set_stores(files_of(&self.backends, &self.stores));
        self.read(written, cgroups);
        true
    }

    /// Reads the metadata that was written since, until there is no more.
    pub fn on_readable(&mut self, cgroups: &dyn CgroupFs) {
        let written = self.watcher.drain();
        self.read(written, cgroups);
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
            self.take(rank, answer, cgroups);
        }
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

    fn read(&mut self, written: Vec<Written>, cgroups: &dyn CgroupFs) {
        for Written { store, path } in written {
            let (rank, store) = self.stores[store];
            let backend = &*self.backends[rank];
            let answer = runtime::read(backend, &backend.stores()[store], &path);
            self.take(rank, answer, cgroups);
        }
    }

    fn take(&mut self, rank: Rank, answer: Lookup, cgroups: &dyn CgroupFs) {
        match answer {
            Lookup::Found(found) => {
                for metadata in found {
                    self.staged.stage(rank, metadata, cgroups);
                }
            }
            Lookup::Unknown => {}
            Lookup::Unreadable(_) => self.unreadable += 1,
        }
    }
}

/// The backends on `roots`, and all their stores.
fn with_stores(roots: &Roots) -> (Vec<Box<dyn Backend>>, Stores) {
    let backends = runtime::backends(roots);
    let mut stores = Vec::new();
    for (rank, backend) in backends.iter().enumerate() {
        stores.extend((0..backend.stores().len()).map(|store| (rank, store)));
    }
    (backends, stores)
}

fn files_of(backends: &[Box<dyn Backend>], stores: &[(Rank, usize)]) -> Vec<Store> {
    stores.iter().map(|&(rank, store)| backends[rank].stores()[store].clone()).collect()
}

impl AsRawFd for Catalog {
    fn as_raw_fd(&self) -> RawFd {
        self.watcher.as_raw_fd()
    }
}
