//! podman and CRI-O: containers/storage's list of containers,
//! `<storage>/<driver>-containers/{containers,volatile-containers}.json` (containers/storage
//! `containers.go`; the metadata is podman's `libpod/storage.go` or CRI-O's
//! `internal/storage/runtime.go`).
//!
//! podman keeps labels in its own database only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Metadata, Placement, Store, is_safe_id, said};
use crate::event::{Container, Pod, Runtime};

/// Storage drivers whose lists are read.
const DRIVERS: [&str; 3] = ["overlay", "vfs", "btrfs"];

pub struct Podman {
    stores: Vec<Store>,
}

impl Podman {
    /// `storages`: `/var/lib/containers/storage`, where the lists are, and its run directory
    /// `/run/containers/storage`, where the volatile ones are.
    pub fn new(storages: &[PathBuf]) -> Self {
        let mut stores = Vec::new();
        for storage in storages {
            for driver in DRIVERS {
                for file in ["containers.json", "volatile-containers.json"] {
                    let root = storage.join(format!("{driver}-containers"));
                    stores.push(Store { root, depth: 0, file, runtime: Runtime::Podman });
                }
            }
        }
        Self { stores }
    }
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON in a string.
    #[serde(default)]
    metadata: Option<String>,
}

/// The `metadata` of podman, and what CRI-O adds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Engine {
    image_name: Option<String>,
    /// CRI-O only.
    pod_id: Option<String>,
    /// CRI-O only: the container's name in its pod.
    metadata_name: Option<String>,
}

impl Backend for Podman {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let entries: Vec<Entry> =
            serde_json::from_slice(content).map_err(|error| error.to_string())?;
        let entries = entries.into_iter().filter(|entry| is_safe_id(&entry.id));
        Ok(entries.map(|entry| metadata(store, path, entry)).collect())
    }
}

fn metadata(store: &Store, path: &Path, entry: Entry) -> Metadata {
    let Entry { id, names, metadata } = entry;
    let engine = metadata.and_then(|json| serde_json::from_str::<Engine>(&json).ok());
    let Engine { image_name, pod_id, metadata_name } = engine.unwrap_or_default();
    let is_crio = said(pod_id).is_some();
    let name = names.unwrap_or_default().into_iter().next();
    let container = Container {
        id,
        name: said(if is_crio { metadata_name.or(name.clone()) } else { name.clone() }),
        runtime: Some(if is_crio { Runtime::CriO } else { store.runtime }),
        image: said(image_name),
        labels: BTreeMap::new(),
        pod: name.filter(|_| is_crio).as_deref().and_then(pod_of),
    };
    Metadata {
        container,
        source: path.to_owned(),
        bundle: None,
        placement: Placement::Unsaid,
        init: None,
    }
}

/// The pod in CRI-O's `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`; Kubernetes allows none of
/// these names an underscore.
fn pod_of(name: &str) -> Option<Pod> {
    let mut parts = name.strip_prefix("k8s_")?.split('_').skip(1);
    let (pod, namespace, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let some = |text: &str| said(Some(text.to_owned()));
    Some(Pod { name: some(pod), namespace: some(namespace), uid: some(uid) })
}
