//! runc: `<root>/<id>/state.json` (runc `libcontainer/container_linux.go`, `State`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Metadata, Placement, Store, id_of};
use crate::event::{Container, Runtime};

pub struct Runc {
    stores: Vec<Store>,
}

impl Runc {
    /// `roots`: runc's `--root`, by default `/run/runc`. `containerd_states`: containerd calls runc
    /// with a root per namespace, `<state>/runc/<namespace>`.
    pub fn new(roots: &[PathBuf], containerd_states: &[PathBuf]) -> Self {
        let file = "state.json";
        let own = roots.iter().map(|root| Store {
            root: root.clone(),
            depth: 1,
            file,
            runtime: Runtime::Runc,
        });
        let containerds = containerd_states.iter().map(|state| Store {
            root: state.join("runc"),
            depth: 2,
            file,
            runtime: Runtime::Containerd,
        });
        Self { stores: own.chain(containerds).collect() }
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
        Ok(vec![Metadata {
            container: Container { id, runtime: Some(store.runtime), ..Container::default() },
            source: path.to_owned(),
            bundle: bundle.map(PathBuf::from),
            placement: Placement::Mounted(cgroup_paths.unwrap_or_default().into_values().collect()),
            init: Some((init_process_pid, init_process_start)),
        }])
    }
}
