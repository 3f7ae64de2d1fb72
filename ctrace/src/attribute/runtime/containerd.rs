//! containerd: the OCI bundles of its tasks,
//! `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/config.json` (OCI runtime specification).
//!
//! The annotations are those of the CRI plugin (`containerd/pkg/cri/annotations`) and of nerdctl
//! (`nerdctl/pkg/labels`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Metadata, Placement, Store, id_of, said};
use crate::event::{Container, Pod, Runtime};

/// Where containerd keeps its tasks' bundles, below its state directory.
const TASKS: &str = "io.containerd.runtime.v2.task";

pub struct Containerd {
    stores: Vec<Store>,
}

impl Containerd {
    /// `states`: containerd's state directories, by default `/run/containerd`.
    pub fn new(states: &[PathBuf]) -> Self {
        let store = |state: &PathBuf| Store {
            root: state.join(TASKS),
            depth: 2,
            file: "config.json",
            runtime: Runtime::Containerd,
        };
        Self { stores: states.iter().map(store).collect() }
    }
}

#[derive(Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath", default)]
    cgroups_path: Option<String>,
}

impl Backend for Containerd {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let Spec { annotations, linux } =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let bundle = path.parent().ok_or("no bundle")?;
        let namespace = bundle.parent().and_then(Path::file_name).unwrap_or_default();
        let mut annotations = annotations.unwrap_or_default();
        let mut cri = |key: &str| said(annotations.remove(&format!("io.kubernetes.cri.{key}")));
        let pod = Pod {
            name: cri("sandbox-name"),
            namespace: cri("sandbox-namespace"),
            uid: cri("sandbox-uid"),
        };
        let (name, image) = (cri("container-name"), cri("image-name"));
        let nerdctl = annotations.keys().any(|key| key.starts_with("nerdctl/"));
        let runtime = match namespace.to_str() {
            // Docker's own namespace in a containerd: the name is in docker's file.
            Some("moby") => Runtime::Docker,
            _ if nerdctl => Runtime::Nerdctl,
            _ => store.runtime,
        };
        let container = Container {
            id: id_of(path)?,
            name: name.or_else(|| said(annotations.remove("nerdctl/name"))),
            runtime: Some(runtime),
            image,
            labels: BTreeMap::new(),
            pod: (pod != Pod::default()).then_some(pod),
        };
        let cgroups_path = linux.and_then(|linux| linux.cgroups_path);
        // `<slice>:<prefix>:<id>` is for systemd, and a relative path depends on the caller's cgroup.
        let absolute = cgroups_path.filter(|path| path.starts_with('/') && !path.contains(':'));
        Ok(vec![Metadata {
            container,
            source: path.to_owned(),
            bundle: Some(bundle.to_owned()),
            placement: absolute.map_or(Placement::Unsaid, Placement::InHierarchies),
            init: None,
        }])
    }
}
