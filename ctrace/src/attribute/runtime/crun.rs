//! crun: `<root>/<id>/status` (crun `src/libcrun/status.c`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Init, Metadata, Placement, Store, id_of, said};
use crate::event::{Container, Runtime};

pub struct Crun {
    stores: Vec<Store>,
}

impl Crun {
    /// `roots`: crun's `--root`, by default `/run/crun`. `namespaced`: those that containerd's shims
    /// use, with a directory per namespace.
    pub fn new(roots: &[PathBuf], namespaced: &[PathBuf]) -> Self {
        Self { stores: super::state_stores(roots, namespaced, "status", Runtime::Crun) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    pid: u32,
    process_start_time: u64,
    /// Below the root of every hierarchy, with or without a slash before it; empty where crun was told to leave cgroups alone.
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
        let runtime = super::state_runtime(store, path);
        Ok(vec![Metadata {
            bundle: said(bundle).map(PathBuf::from),
            placement: said(cgroup_path).map_or(Placement::Unsaid, |path| {
                Placement::InHierarchies(format!("/{}", path.trim_start_matches('/')))
            }),
            init: Some(Init { pid, start_ticks: Some(process_start_time) }),
            ..Metadata::new(path, Container { id, runtime, ..Container::default() })
        }])
    }
}
