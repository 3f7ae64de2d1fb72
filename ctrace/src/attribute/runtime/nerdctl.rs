//! nerdctl: the names that are taken, `<data-root>/<hash of containerd's
//! address>/names/<namespace>/<name>`, each a file that holds the container's id (nerdctl
//! `docs/dir.md`). After a rename it is the only one that knows.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Backend, Files, IdIn, Metadata, Store};
use crate::attribute::cgroup::is_hex64;
use crate::event::{Container, Runtime};

pub struct Nerdctl {
    stores: Vec<Store>,
}

impl Nerdctl {
    /// `data_roots`: by default `/var/lib/nerdctl/1935db59`, of `/run/containerd/containerd.sock`.
    pub fn new(data_roots: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.join("names"),
            depth: 1,
            file: Files::Any,
            id: IdIn::Content,
            runtime: Some(Runtime::Nerdctl),
            is_users: false,
        };
        Self { stores: data_roots.iter().map(store).collect() }
    }
}

impl Backend for Nerdctl {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let id = std::str::from_utf8(content).map(str::trim).ok().filter(|id| is_hex64(id));
        // nerdctl makes the file before it writes to it.
        let Some(id) = id else { return Ok(Vec::new()) };
        let name = path.file_name().and_then(OsStr::to_str).ok_or("no name")?;
        let (id, name, runtime) = (id.to_owned(), Some(name.to_owned()), store.runtime);
        let container = Container { id, name, runtime, ..Container::default() };
        Ok(vec![Metadata::new(path, container)])
    }
}
