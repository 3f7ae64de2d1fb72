//! runc: `<root>/<id>/state.json` (runc `libcontainer/container_linux.go`, `State`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Init, Metadata, Placement, Store, id_of};
use crate::event::{Container, Runtime};

pub struct Runc {
    stores: Vec<Store>,
}

impl Runc {
    /// `roots`: runc's `--root`, by default `/run/runc`. `namespaced`: those that containerd's shims
    /// use, with a directory per namespace.
    pub fn new(roots: &[PathBuf], namespaced: &[PathBuf]) -> Self {
        Self { stores: super::state_stores(roots, namespaced, "state.json", Runtime::Runc) }
    }
}

#[derive(Deserialize)]
struct State {
    id: String,
    init_process_pid: u32,
    init_process_start: u64,
    /// Directories by controller; the unified hierarchy's key is empty.
    #[serde(default)]
    cgroup_paths: Option<BTreeMap<String, PathBuf>>,
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    /// `key=value`: the annotations, and `bundle`.
    #[serde(default)]
    labels: Option<Vec<String>>,
}

impl Backend for Runc {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let State { id, init_process_pid, init_process_start, cgroup_paths, config } =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if id_of(path)? != id {
            return Err("the file is another container's".into());
        }
        let labels = config.and_then(|config| config.labels).unwrap_or_default();
        let bundle = labels.iter().find_map(|label| label.strip_prefix("bundle="));
        let runtime = super::state_runtime(store, path);
        let cgroups = cgroup_paths.unwrap_or_default().into_values().collect();
        Ok(vec![Metadata {
            bundle: bundle.map(PathBuf::from),
            placement: Placement::Mounted(cgroups),
            init: Some(Init { pid: init_process_pid, start_ticks: Some(init_process_start) }),
            ..Metadata::new(path, Container { id, runtime, ..Container::default() })
        }])
    }
}
