//! crun: `<root>/<id>/status` (crun `src/libcrun/status.c`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Metadata, Placement, Store, id_of, said};
use crate::event::{Container, Runtime};

pub struct Crun {
    stores: Vec<Store>,
}

impl Crun {
    /// `roots`: crun's `--root`, by default `/run/crun`.
    pub fn new(roots: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.clone(),
            depth: 1,
            file: "status",
            runtime: Runtime::Crun,
        };
        Self { stores: roots.iter().map(store).collect() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    pid: u32,
    process_start_time: u64,
    /// Relative to the root of every hierarchy; empty where crun was told to leave cgroups alone.
    #[serde(default)]
    cgroup_path: Option<String>,
    #[serde(default)]
    bundle: Option<String>,
}

impl Backend for Crun {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let Status { pid, process_start_time, cgroup_path, bundle } =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let id = id_of(path)?;
        Ok(vec![Metadata {
            container: Container { id, runtime: Some(store.runtime), ..Container::default() },
            source: path.to_owned(),
            bundle: said(bundle).map(PathBuf::from),
            placement: said(cgroup_path).map_or(Placement::Unsaid, Placement::InHierarchies),
            init: Some((pid, process_start_time)),
        }])
    }
}
