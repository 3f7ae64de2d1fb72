//! LXC: `<lxcpath>/<name>/config`, lines of `key = value` (lxc.container.conf(5)). The name is the id,
//! and the cgroup is `lxc.payload.<name>`, with `-<number>` where that was taken (LXC
//! `src/lxc/cgroups/cgfsng.c`).

use std::path::{Path, PathBuf};

use super::{Backend, Files, IdIn, Metadata, Placement, Store, id_of};
use crate::event::{Container, Runtime};

pub struct Lxc {
    stores: Vec<Store>,
}

impl Lxc {
    /// `paths`: `lxc.lxcpath`, by default `/var/lib/lxc`.
    pub fn new(paths: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.clone(),
            depth: 1,
            file: Files::Named("config"),
            id: IdIn::Directory(1),
            runtime: Some(Runtime::Lxc),
            is_users: false,
        };
        Self { stores: paths.iter().map(store).collect() }
    }
}

impl Backend for Lxc {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let id = id_of(path)?;
        let text = String::from_utf8_lossy(content);
        let (mut parent, mut whole) = (None, None);
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            match (key.trim(), value.trim()) {
                ("lxc.cgroup.dir", value) => parent = Some(value),
                ("lxc.cgroup.dir.container", value) => whole = Some(value),
                _ => {}
            }
        }
        let cgroup = match (whole, parent) {
            (Some(whole), _) => whole.to_owned(),
            (None, Some(parent)) => format!("{parent}/lxc.payload.{id}"),
            (None, None) => format!("lxc.payload.{id}"),
        };
        let plain = |part: &str| part != "." && part != "..";
        let is_path = cgroup.split('/').all(plain) && !cgroup.trim_matches('/').is_empty();
        let placement = if is_path {
            Placement::InHierarchies(format!("/{}", cgroup.trim_matches('/')))
        } else {
            Placement::Unsaid
        };
        let name = Some(id.clone());
        let container = Container { id, name, runtime: store.runtime, ..Container::default() };
        Ok(vec![Metadata { placement, ..Metadata::new(path, container) }])
    }
}
