//! What the container runtimes keep on disk about their containers.
//!
//! Everything is read from files, so that it works with every daemon dead or stalled, and nothing
//! here fails: what cannot be read is unknown. Parsing is pure; [`read`] and [`lookup`] are the only
//! ones that touch the disk.

pub mod containerd;
pub mod cri_o;
pub mod crun;
pub mod docker;
mod file;
pub mod kubernetes;
pub mod lxc;
pub mod machined;
pub mod nerdctl;
mod oci;
pub mod podman;
pub mod roots;
pub mod runc;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::is_hex64;
pub use crate::event::State;
use crate::event::{Container, Runtime};
use file::Content;

/// Entries of a user's directory that are looked at.
const MAX_USERS_ENTRIES: usize = 4 << 10;
/// Files of a user's that are read in search of one container.
const MAX_USERS_CANDIDATES: usize = 256;

/// Files of one kind: `<root>/<depth names>/<file>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub root: PathBuf,
    /// Directories between the root and the files.
    pub depth: usize,
    pub file: Files,
    pub id: IdIn,
    /// Whose containers these are, where the store says so.
    pub runtime: Option<Runtime>,
    /// Any user can write what he likes there.
    pub is_users: bool,
}

/// Which entries of a directory are of interest. Hidden ones are only where they are named: they are
/// the runtimes' temporary files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// The regular file of this name.
    Named(&'static str),
    /// Every regular file.
    Any,
    /// The names of regular files and symbolic links; their content is not read.
    Names,
}

/// Where the id of a file's container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdIn {
    /// The name of the directory this many levels below the root.
    Directory(usize),
    /// Somewhere in the file's name.
    FileName,
    /// The file's content, and then it has 64 digits.
    Content,
}

/// What one file says about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub container: Container,
    /// The file that says so.
    pub source: PathBuf,
    /// uid of the file's owner, where it may not be what root's runtimes wrote: that uid is not
    /// root's, or the directory is a user's.
    pub user: Option<u32>,
    /// The OCI bundle: ties a low-level runtime's state to its engine's metadata.
    pub bundle: Option<PathBuf>,
    pub placement: Placement,
    pub init: Option<Init>,
    /// As of the file's writing, where it says so.
    pub state: Option<State>,
}

/// The first process of a container, in the host's pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    pub pid: u32,
    /// Clock ticks since boot (field 22 of `/proc/PID/stat`). Without it, the pid may be another
    /// process's by now.
    pub start_ticks: Option<u64>,
}

impl Metadata {
    /// What the file at `source` says, if that is all.
    fn new(source: &Path, container: Container) -> Self {
        Self {
            container,
            source: source.to_owned(),
            user: None,
            bundle: None,
            placement: Placement::Unsaid,
            init: None,
            state: None,
        }
    }

    /// The first process, where this file says, or the one that containerd keeps beside it.
    pub fn first_process(&self) -> Option<Init> {
        let bundle = self.bundle.as_deref().filter(|bundle| self.source.parent() == Some(bundle));
        self.init.or_else(|| containerd::init(bundle?))
    }
}

/// Which cgroups the metadata says are the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It does not say; the id in the cgroup's name does.
    Unsaid,
    /// Directories below the mount points of cgroup file systems.
    Mounted(Vec<PathBuf>),
    /// The same path in every hierarchy.
    InHierarchies(String),
}

/// What the disk says about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Several where the same free-text id is in several namespaces.
    Found(Vec<Metadata>),
    Unknown,
    Unreadable(String),
}

/// A container runtime's files.
pub trait Backend {
    fn stores(&self) -> &[Store];

    /// Parses the content of a file at `path` of `store`. Pure.
    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String>;
}

/// All backends on `roots`; of several answers about one id the earlier backend's is the better.
///
/// Engines come before the low-level runtimes that they call, which know no names, and what any user
/// can write comes last.
pub fn backends(roots: &roots::Roots) -> Vec<Box<dyn Backend>> {
    let roots::Roots {
        docker,
        containerd,
        nerdctl,
        podman,
        lxc,
        machined,
        runc,
        crun,
        namespaced,
        kubernetes,
        users,
    } = roots;
    let mut backends: Vec<Box<dyn Backend>> = vec![
        Box::new(docker::Docker::new(docker)),
        // The annotations of a pod's container say more than the list that it is also in.
        Box::new(cri_o::CriO::new(podman)),
        Box::new(podman::Podman::new(podman)),
        // A container that was renamed keeps its first name in its bundle.
        Box::new(nerdctl::Nerdctl::new(nerdctl)),
        Box::new(containerd::Containerd::new(containerd)),
        Box::new(machined::Machined::new(machined)),
        Box::new(lxc::Lxc::new(lxc)),
        Box::new(crun::Crun::new(crun, namespaced)),
        Box::new(runc::Runc::new(runc, namespaced)),
        Box::new(containerd::InitPid::new(containerd)),
        Box::new(kubernetes::Logs::new(kubernetes)),
    ];
    for backend in users.iter().flat_map(|users| self::backends(users)) {
        backends.push(Box::new(OfUsers::new(backend)));
    }
    backends
}

/// A backend on the directories of users.
struct OfUsers {
    backend: Box<dyn Backend>,
    stores: Vec<Store>,
}

impl OfUsers {
    fn new(backend: Box<dyn Backend>) -> Self {
        let of_users = |store: &Store| Store { is_users: true, ..store.clone() };
        Self { stores: backend.stores().iter().map(of_users).collect(), backend }
    }
}

impl Backend for OfUsers {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        self.backend.parse(store, path, content)
    }
}

/// Reads one file of `store`.
pub fn read(backend: &dyn Backend, store: &Store, path: &Path) -> Lookup {
    let max = if store.is_users { file::MAX_USERS_BYTES } else { file::MAX_BYTES };
    let content = match store.file {
        // In a directory of root's own; the name may be gone by now, and counts all the same.
        Files::Names => Ok(Some(Content { bytes: Vec::new(), owner: 0 })),
        Files::Named(_) | Files::Any => file::read(path, max),
    };
    match content {
        Ok(None) => Lookup::Unknown,
        Ok(Some(Content { bytes, owner })) => match backend.parse(store, path, &bytes) {
            Ok(found) if found.is_empty() => Lookup::Unknown,
            Ok(mut found) => {
                let user = (store.is_users || owner != 0).then_some(owner);
                found.iter_mut().for_each(|metadata| metadata.user = user);
                Lookup::Found(found)
            }
            Err(reason) => Lookup::Unreadable(format!("{}: {reason}", path.display())),
        },
        Err(error) => Lookup::Unreadable(format!("{}: {error}", path.display())),
    }
}

/// Looks for the container `id` in all stores of `backend`.
pub fn lookup(backend: &dyn Backend, id: &str) -> Lookup {
    if !is_safe_id(id) {
        return Lookup::Unknown;
    }
    let mut found = Vec::new();
    let mut reason = None;
    for store in backend.stores() {
        for path in candidates(store, id) {
            match read(backend, store, &path) {
                Lookup::Found(all) => {
                    found.extend(all.into_iter().filter(|one| one.container.id == id));
                }
                Lookup::Unknown => {}
                Lookup::Unreadable(why) => reason = Some(why),
            }
        }
    }
    match reason {
        _ if !found.is_empty() => Lookup::Found(found),
        Some(reason) => Lookup::Unreadable(reason),
        None => Lookup::Unknown,
    }
}

/// Where `store` would have the files of `id`.
fn candidates(store: &Store, id: &str) -> Vec<PathBuf> {
    if store.id == IdIn::Content && !is_hex64(id) {
        return Vec::new();
    }
    let max = if store.is_users { MAX_USERS_CANDIDATES } else { usize::MAX };
    let mut directories = vec![store.root.clone()];
    for level in 1..=store.depth {
        directories = if store.id == IdIn::Directory(level) {
            directories.iter().map(|directory| directory.join(id)).collect()
        } else {
            let inside = directories.iter().flat_map(|directory| store.subdirectories(directory));
            inside.take(max).collect()
        };
    }
    let may_be = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        store.id != IdIn::FileName || name.is_some_and(|name| name.contains(id))
    };
    let files = directories.iter().flat_map(|directory| store.files(directory));
    files.filter(may_be).take(max).collect()
}

impl Store {
    /// Directories in `parent`, as far as they are looked at.
    pub fn subdirectories(&self, parent: &Path) -> Vec<PathBuf> {
        subdirectories_among(parent, self.max_entries())
    }

    /// Files in `directory`, as far as they are looked at; a named one also where it is not.
    pub fn files(&self, directory: &Path) -> Vec<PathBuf> {
        self.file.inside(directory, self.max_entries())
    }

    /// Entries of a directory that are looked at: a user can make any number.
    fn max_entries(&self) -> usize {
        if self.is_users { MAX_USERS_ENTRIES } else { usize::MAX }
    }
}

impl Files {
    /// Whether an entry with `name` is one, by its name.
    pub fn takes(self, name: &OsStr) -> bool {
        match self {
            Files::Named(file) => name == file,
            Files::Any | Files::Names => !is_hidden(name),
        }
    }

    /// Those among the first `max` entries of `directory`; a named one also where it is not.
    fn inside(self, directory: &Path, max: usize) -> Vec<PathBuf> {
        if let Files::Named(file) = self {
            return vec![directory.join(file)];
        }
        let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
        let is_one = |entry: &fs::DirEntry| {
            let kind = entry.file_type();
            let is_kind = kind
                .is_ok_and(|kind| kind.is_file() || (self == Files::Names && kind.is_symlink()));
            is_kind && self.takes(&entry.file_name())
        };
        entries.take(max).flatten().filter(is_one).map(|entry| entry.path()).collect()
    }
}

/// Directories in `parent`; hidden ones are the runtimes' own (containerd renames a container that
/// it deletes to `.<id>`).
pub fn subdirectories(parent: &Path) -> Vec<PathBuf> {
    subdirectories_among(parent, usize::MAX)
}

/// As [`subdirectories`], of the first `max` entries.
fn subdirectories_among(parent: &Path, max: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .take(max)
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !is_hidden(&entry.file_name()))
        .map(|entry| entry.path())
        .collect()
}

pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// An id that may become a part of a path and of a line of text.
pub fn is_safe_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 255
        && !id.starts_with('.')
        && !id.contains(|c: char| c == '/' || c.is_control())
}

/// The container's directory in `<store>/<id>/<file>`: its name is the id.
fn id_of(path: &Path) -> Result<String, String> {
    safe_name(path.parent())
}

/// The last component of `path`, where it may be an id.
fn safe_name(path: Option<&Path>) -> Result<String, String> {
    let id = path.and_then(Path::file_name).and_then(OsStr::to_str);
    id.filter(|id| is_safe_id(id)).map(Into::into).ok_or_else(|| "no id in the path".into())
}

/// Where a low-level runtime keeps `<root>/<id>/<file>`, or in a root of containerd's shims
/// `<root>/<namespace>/<id>/<file>`.
fn state_stores(
    roots: &[PathBuf],
    namespaced: &[PathBuf],
    file: &'static str,
    runtime: Runtime,
) -> Vec<Store> {
    let store = |root: &PathBuf, depth, runtime| Store {
        root: root.clone(),
        depth,
        file: Files::Named(file),
        id: IdIn::Directory(depth),
        runtime,
        is_users: false,
    };
    let own = roots.iter().map(|root| store(root, 1, Some(runtime)));
    own.chain(namespaced.iter().map(|root| store(root, 2, Some(Runtime::Containerd)))).collect()
}

/// Whose container the state at `path` is: in a shim's root, `moby` is docker's namespace.
fn state_runtime(store: &Store, path: &Path) -> Option<Runtime> {
    let namespace = path.parent().and_then(Path::parent).and_then(Path::file_name);
    let is_docker = store.depth == 2 && namespace.is_some_and(|name| name == "moby");
    if is_docker { Some(Runtime::Docker) } else { store.runtime }
}

/// Empty text says nothing.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
