//! podman and CRI-O: containers/storage's list of containers,
//! `<storage>/<driver>-containers/{containers,volatile-containers}.json` (containers/storage
//! `containers.go`; the metadata is podman's `libpod/storage.go` or CRI-O's
//! `internal/storage/runtime.go`).
//!
//! podman keeps labels, and which pod a container is in, in its own database only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Backend, Files, IdIn, Metadata, Store, is_safe_id, kubernetes, said};
use crate::event::{Container, Runtime};

/// Storage drivers whose lists are read.
const DRIVERS: [&str; 3] = ["overlay", "vfs", "btrfs"];

/// Where containers/storage has its containers.
pub fn directories(storages: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    let of = |storage: &PathBuf| DRIVERS.map(|driver| storage.join(format!("{driver}-containers")));
    storages.iter().flat_map(of)
}

pub struct Podman {
    stores: Vec<Store>,
}

impl Podman {
    /// `storages`: `/var/lib/containers/storage`, where the lists are, and its run directory
    /// `/run/containers/storage`, where the volatile ones are.
    pub fn new(storages: &[PathBuf]) -> Self {
        let store = |root: PathBuf| {
            ["containers.json", "volatile-containers.json"].map(|file| Store {
                root: root.clone(),
                depth: 0,
                file: Files::Named(file),
                id: IdIn::Content,
                runtime: Some(Runtime::Podman),
                is_users: false,
            })
        };
        Self { stores: directories(storages).flat_map(store).collect() }
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
    /// CRI-O only: the id of the pod's sandbox.
    pod_id: Option<String>,
    /// CRI-O only: the container's name in its pod, of a sandbox the pod's.
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
        Ok(entries.map(|entry| Metadata::new(path, container(store, entry))).collect())
    }
}

fn container(store: &Store, entry: Entry) -> Container {
    let Entry { id, names, metadata } = entry;
    let engine = metadata.and_then(|json| serde_json::from_str::<Engine>(&json).ok());
    let Engine { image_name, pod_id, metadata_name } = engine.unwrap_or_default();
    let name = said(names.unwrap_or_default().into_iter().next());
    let common =
        Container { id, image: said(image_name), labels: BTreeMap::new(), ..Container::default() };
    match said(pod_id) {
        Some(pod_id) => Container {
            name: said(metadata_name).or(name.clone()).filter(|_| pod_id != common.id),
            runtime: Some(Runtime::CriO),
            pod: name.as_deref().and_then(kubernetes::pod_of_name),
            is_sandbox: pod_id == common.id,
            ..common
        },
        None => Container {
            is_sandbox: name.as_deref().is_some_and(is_infra),
            name,
            runtime: store.runtime,
            ..common
        },
    }
}

/// Whether podman gave this name to a pod's infra container: the first 12 digits of the pod's id and
/// `-infra` (podman `libpod/runtime_pod_linux.go`).
fn is_infra(name: &str) -> bool {
    name.strip_suffix("-infra").is_some_and(|pod| {
        pod.len() == 12 && pod.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
