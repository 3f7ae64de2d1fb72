//! inotify on the directories where runtimes keep their metadata.
//!
//! Docker writes a container's `config.v2.json` about 80 ms before its cgroup exists and unlinks it
//! about 75 ms after its exit, so that a file read on its own event names every container.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::runtime::{Files, Store, is_hidden};

/// Directories of one store of users that are watched: a user can make any number.
const MAX_USERS_WATCHES: usize = 4 << 10;
/// Events that are taken at a time.
const MAX_EVENTS: usize = 64 << 10;

/// A file of a store that was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// Position of the store in the list that the watcher was made with.
    pub store: usize,
    pub path: PathBuf,
    /// It was found in a directory that is new, and may only be half written: then it comes again.
    pub is_young: bool,
}

/// What a watched directory is to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The nearest ancestor that exists of a root that does not.
    Ancestor,
    /// This many directories above the files.
    Above(usize),
}

struct Directory {
    path: PathBuf,
    places: Vec<(usize, Place)>,
}

pub struct Watcher {
    /// None where the kernel refused: then files are only read when an event asks for them.
    inotify: Option<OwnedFd>,
    /// Never readable: something to poll in inotify's place.
    silent: Option<(PipeReader, PipeWriter)>,
    stores: Vec<Store>,
    /// Watched directories, by store.
    counts: Vec<usize>,
    directories: HashMap<i32, Directory>,
    overflows: u64,
    /// Why a directory, or any, is not watched.
    refused: Option<io::Error>,
}

impl Watcher {
    /// Watches all `stores`; the files that are there already come back as written.
    pub fn new(stores: Vec<Store>) -> (Self, Vec<Written>) {
        let (inotify, refused) = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(inotify) => (Some(inotify), None),
            Err(error) => (None, Some(error.into())),
        };
        let silent = if inotify.is_none() { io::pipe().ok() } else { None };
        let mut watcher = Self {
            inotify,
            silent,
            counts: vec![0; stores.len()],
            stores,
            directories: HashMap::new(),
            overflows: 0,
            refused,
        };
        let written = watcher.watch_all();
        (watcher, written)
    }

    /// Watches these stores instead; the files that are there come back as written.
    pub fn set_stores(&mut self, stores: Vec<Store>) -> Vec<Written> {
        for (wd, _) in self.directories.drain() {
            if let Some(inotify) = &self.inotify {
                // Refused only where the watch is gone already.
                let _ = inotify::remove_watch(inotify, wd);
            }
        }
        self.counts = vec![0; stores.len()];
        self.stores = stores;
        self.watch_all()
    }

    /// Times that the kernel's queue was full and everything was read again.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Why not everything is watched, if so.
    pub fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Drains the queue: the files that were written since, each once.
    pub fn drain(&mut self) -> Vec<Written> {
        let mut written = Vec::new();
        // Each once, however often it came: a user can swap two full directories without end.
        let mut trees = BTreeSet::new();
        for (wd, flags, name) in self.events() {
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.overflows += 1;
                written.extend(self.watch_all());
            } else if flags.contains(ReadFlags::IGNORED) {
                self.forget(wd, &mut written);
            } else if flags.contains(ReadFlags::MOVE_SELF) {
                // Its path is no longer true. The kernel answers with IGNORED.
                if let Some(inotify) = &self.inotify {
                    // Refused only where the watch is gone already.
                    let _ = inotify::remove_watch(inotify, wd);
                }
            } else {
                self.changed(wd, &name, flags, &mut trees, &mut written);
            }
        }
        for (store, directory, above) in trees {
            self.watch_tree(store, &directory, above, &mut written);
        }
        // Of a file that came twice, the one that is not young comes first.
        written.sort_unstable();
        written.dedup_by(|next, first| (next.store, &next.path) == (first.store, &first.path));
        written
    }

    fn events(&self) -> Vec<(i32, ReadFlags, Vec<u8>)> {
        let Some(inotify) = &self.inotify else { return Vec::new() };
        let mut events = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        while events.len() < MAX_EVENTS {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map_or(&[][..], |name| name.to_bytes());
                    events.push((event.wd(), event.events(), name.to_owned()));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        events
    }

    /// Something has happened to `name` in the directory of `wd`. What has to be watched besides goes
    /// to `trees`, as [`Watcher::watch_tree`] takes it.
    fn changed(
        &mut self,
        wd: i32,
        name: &[u8],
        flags: ReadFlags,
        trees: &mut BTreeSet<(usize, PathBuf, usize)>,
        written: &mut Vec<Written>,
    ) {
        let Some(Directory { path, places }) = self.directories.get(&wd) else { return };
        let is_directory = flags.contains(ReadFlags::ISDIR);
        let name = OsStr::from_bytes(name);
        let path = path.join(name);
        for (store, place) in places.clone() {
            match place {
                Place::Ancestor if is_directory => self.watch(store, written),
                Place::Above(0) if !is_directory => {
                    let file = self.stores[store].file;
                    if file.takes(name) && is_whole(file, flags, &path) {
                        written.push(Written { store, path: path.clone(), is_young: false });
                    }
                }
                Place::Above(above @ 1..) if is_directory && !is_hidden(name) => {
                    trees.insert((store, path.clone(), above - 1));
                }
                Place::Ancestor | Place::Above(_) => {}
            }
        }
    }

    /// The watch of a directory has ended. A store that was rooted there has to be found again.
    fn forget(&mut self, wd: i32, written: &mut Vec<Written>) {
        let Some(Directory { path, places }) = self.directories.remove(&wd) else { return };
        for (store, _) in places {
            self.counts[store] -= 1;
            if !path.starts_with(&self.stores[store].root) || path == self.stores[store].root {
                self.watch(store, written);
            }
        }
    }

    fn watch_all(&mut self) -> Vec<Written> {
        let mut written = Vec::new();
        for store in 0..self.stores.len() {
            self.watch(store, &mut written);
        }
        written.iter_mut().for_each(|written| written.is_young = false);
        written
    }

    /// Watches a store, or what it will appear in.
    fn watch(&mut self, store: usize, written: &mut Vec<Written>) {
        let Store { root, depth, .. } = self.stores[store].clone();
        if self.watch_tree(store, &root, depth, written) {
            self.leave_ancestors(store);
            return;
        }
        for ancestor in root.ancestors().skip(1) {
            if !self.add(store, ancestor, Place::Ancestor) {
                continue;
            }
            // What was made between the two attempts has no event: look again, one level down.
            let below = root.strip_prefix(ancestor).ok().and_then(|below| below.iter().next());
            if below.is_some_and(|below| ancestor.join(below).is_dir()) {
                self.watch(store, written);
            }
            return;
        }
    }

    /// The root of `store` is there: what happens above it is no longer of interest.
    fn leave_ancestors(&mut self, store: usize) {
        let inotify = self.inotify.as_ref();
        self.directories.retain(|wd, directory| {
            let before = directory.places.len();
            directory.places.retain(|place| *place != (store, Place::Ancestor));
            self.counts[store] -= before - directory.places.len();
            if let Some(inotify) = inotify.filter(|_| directory.places.is_empty()) {
                // Refused only where the watch is gone already.
                let _ = inotify::remove_watch(inotify, *wd);
            }
            !directory.places.is_empty()
        });
    }

    /// Watches `directory`, which is `above` levels above the files, and everything in it. First the
    /// watch, then the look inside, so that nothing falls between.
    fn watch_tree(
        &mut self,
        store: usize,
        directory: &Path,
        above: usize,
        written: &mut Vec<Written>,
    ) -> bool {
        let Store { root, is_users, .. } = &self.stores[store];
        // The root always: what is above it would be watched for it to appear.
        if *is_users && directory != root && self.counts[store] >= MAX_USERS_WATCHES {
            let reason = format!("{}: more than {MAX_USERS_WATCHES} directories", root.display());
            self.refused = Some(io::Error::other(reason));
            return false;
        }
        let is_watched = self.add(store, directory, Place::Above(above));
        if above == 0 {
            let mut paths = self.stores[store].files(directory);
            paths.retain(|path| self.stores[store].file == Files::Names || path.is_file());
            let young = |path| Written { store, path, is_young: true };
            written.extend(paths.into_iter().map(young));
        } else {
            for below in self.stores[store].subdirectories(directory) {
                self.watch_tree(store, &below, above - 1, written);
            }
        }
        is_watched
    }

    /// Whether the directory exists and is watched, as far as this kernel lets.
    fn add(&mut self, store: usize, path: &Path, place: Place) -> bool {
        let Some(inotify) = &self.inotify else { return path.is_dir() };
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::EXCL_UNLINK;
        match inotify::add_watch(inotify, path, flags) {
            Ok(wd) => {
                let directory = self
                    .directories
                    .entry(wd)
                    .or_insert_with(|| Directory { path: path.to_owned(), places: Vec::new() });
                // The number may be one that this directory had under an older path.
                directory.path = path.to_owned();
                if !directory.places.contains(&(store, place)) {
                    directory.places.push((store, place));
                    self.counts[store] += 1;
                }
                true
            }
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(error) => {
                self.refused = Some(error.into());
                path.is_dir()
            }
        }
    }
}

/// Whether an event says that there is something to read at `path`. A name is whole as soon as it is
/// there: a symbolic link is never written to.
fn is_whole(file: Files, flags: ReadFlags, path: &Path) -> bool {
    let is_written = flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
    match file {
        Files::Named(_) => is_written,
        Files::Any => is_written && path.symlink_metadata().is_ok_and(|found| found.is_file()),
        Files::Names => flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO),
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        let silent = || self.silent.as_ref().map(|(reader, _)| reader.as_raw_fd());
        self.inotify.as_ref().map(AsRawFd::as_raw_fd).or_else(silent).unwrap_or(-1)
    }
}

#[cfg(test)]
mod tests;
