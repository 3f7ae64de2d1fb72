//! What the container runtimes keep on disk about their containers.
//!
//! Everything is read from files, so that it works with every daemon dead or stalled, and nothing
//! here fails: what cannot be read is unknown. Parsing is pure; [`read`] and [`lookup`] are the only
//! ones that touch the disk.

pub mod containerd;
pub mod crun;
pub mod docker;
mod file;
pub mod podman;
pub mod roots;
pub mod runc;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::is_hex64;
use crate::event::{Container, Runtime};

/// Files of one kind: `<root>/<depth names>/<file>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub root: PathBuf,
    /// Directories between the root and the file; the last of them is named after the container.
    /// 0: one file lists all containers.
    pub depth: usize,
    pub file: &'static str,
    /// Whose containers these are.
    pub runtime: Runtime,
}

/// What one file says about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub container: Container,
    /// The file that says so.
    pub source: PathBuf,
    /// The OCI bundle: ties a low-level runtime's state to its engine's metadata.
    pub bundle: Option<PathBuf>,
    pub placement: Placement,
    /// Init process: pid and start, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub init: Option<(u32, u64)>,
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
pub fn backends(roots: &roots::Roots) -> Vec<Box<dyn Backend>> {
    vec![
        Box::new(docker::Docker::new(&roots.docker)),
        Box::new(podman::Podman::new(&roots.podman)),
        Box::new(containerd::Containerd::new(&roots.containerd)),
        Box::new(crun::Crun::new(&roots.crun)),
        Box::new(runc::Runc::new(&roots.runc, &roots.containerd)),
    ]
}

/// Reads one file of `store`.
pub fn read(backend: &dyn Backend, store: &Store, path: &Path) -> Lookup {
    match file::read(path) {
        Ok(None) => Lookup::Unknown,
        Ok(Some(content)) => match backend.parse(store, path, &content) {
            Ok(found) if found.is_empty() => Lookup::Unknown,
            Ok(found) => Lookup::Found(found),
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

/// Where `store` would have the file of `id`.
fn candidates(store: &Store, id: &str) -> Vec<PathBuf> {
    match store.depth {
        // The one file is long, and lists ids of 64 digits only.
        0 if !is_hex64(id) => Vec::new(),
        0 => vec![store.root.join(store.file)],
        1 => vec![store.root.join(id).join(store.file)],
        _ => subdirectories(&store.root)
            .into_iter()
            .map(|namespace| namespace.join(id).join(store.file))
            .collect(),
    }
}

/// Directories in `parent`; hidden ones are the runtimes' own (containerd renames a container that
/// it deletes to `.<id>`).
pub fn subdirectories(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| !is_hidden(&entry.file_name()))
        .map(|entry| entry.path())
        .collect()
}

pub fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// An id that may become a part of a path.
pub fn is_safe_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 255 && !id.starts_with('.') && !id.contains(['/', '\0'])
}

/// The container's directory in `<store>/<id>/<file>`: its name is the id.
fn id_of(path: &Path) -> Result<String, String> {
    let id = path.parent().and_then(Path::file_name).and_then(OsStr::to_str);
    id.filter(|id| is_safe_id(id)).map(Into::into).ok_or_else(|| "no id in the path".into())
}

/// Empty text says nothing.
fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
