//! Docker: `<data-root>/containers/<id>/config.v2.json` (moby `container/container.go`,
//! `Container.toDisk`; its state is `container/state.go`).
//!
//! Compose's project and service are labels, `com.docker.compose.*`, and stay there. Of a Kubernetes
//! container, cri-dockerd's labels name it and its pod (cri-dockerd `core/docker_service.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Files, IdIn, Init, Metadata, State, Store, id_of, kubernetes, said};
use crate::event::{Container, Runtime};

/// When a container that never was started was started (Go's zero time).
const NEVER: &str = "0001-01-01T00:00:00Z";

pub struct Docker {
    stores: Vec<Store>,
}

impl Docker {
    /// `data_roots`: dockerd's `--data-root`, by default `/var/lib/docker`.
    pub fn new(data_roots: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.join("containers"),
            depth: 1,
            file: Files::Named("config.v2.json"),
            id: IdIn::Directory(1),
            runtime: Some(Runtime::Docker),
            is_users: false,
        };
        Self { stores: data_roots.iter().map(store).collect() }
    }
}

#[derive(Deserialize)]
struct ConfigV2 {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name")]
    name: Option<String>,
    #[serde(rename = "Config")]
    config: Option<Config>,
    #[serde(rename = "State")]
    state: Option<DiskState>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    image: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DiskState {
    running: bool,
    paused: bool,
    restarting: bool,
    dead: bool,
    /// 0: none.
    pid: u32,
    started_at: Option<String>,
}

impl DiskState {
    fn state(&self) -> State {
        match self {
            // Docker says that it runs while it waits to start it again.
            Self { dead: true, .. } | Self { restarting: true, pid: 0, .. } => State::Stopped,
            Self { running: true, paused: true, .. } => State::Paused,
            Self { running: true, .. } => State::Running,
            Self { started_at: Some(at), .. } if at == NEVER => State::Created,
            Self { .. } => State::Stopped,
        }
    }

    fn init(&self) -> Option<Init> {
        let lives = matches!(self.state(), State::Running | State::Paused) && self.pid != 0;
        lives.then_some(Init { pid: self.pid, start_ticks: None })
    }
}

impl Backend for Docker {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let ConfigV2 { id, name, config, state } =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if id_of(path)? != id {
            return Err("the file is another container's".into());
        }
        let Config { image, labels } = config.unwrap_or_default();
        let labels = labels.unwrap_or_default();
        let name = said(name.map(|name| name.strip_prefix('/').unwrap_or(&name).to_owned()));
        let kind = labels.get("io.kubernetes.docker.type").map(String::as_str);
        let container = Container {
            id,
            name: kubernetes::container_name(&labels).or(name),
            runtime: store.runtime,
            image: said(image),
            pod: kubernetes::pod(&labels),
            is_sandbox: kind == Some("podsandbox"),
            labels,
        };
        let init = state.as_ref().and_then(DiskState::init);
        let state = state.as_ref().map(DiskState::state);
        Ok(vec![Metadata { init, state, ..Metadata::new(path, container) }])
    }
}
