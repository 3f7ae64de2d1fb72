//! containerd: the OCI bundles of its tasks,
//! `<state>/io.containerd.runtime.v2.task/<namespace>/<id>/{config.json,init.pid}` (OCI runtime
//! specification; the pid is its shim's, `containerd/pkg/process/init.go`).
//!
//! The annotations are those of the CRI plugin (`containerd/pkg/cri/annotations`) and of nerdctl
//! (`nerdctl/pkg/labels`). Labels, and the image of a container that is not the CRI plugin's, are in
//! containerd's database only.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Backend, Files, IdIn, Init, Metadata, Store, file, id_of, oci, said};
use crate::event::{Container, Pod, Runtime};

/// Where containerd keeps its tasks' bundles, below its state directory.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// The file of a bundle that has the pid of the first process.
const INIT: &str = "init.pid";

fn stores(states: &[PathBuf], file: &'static str) -> Vec<Store> {
    let store = |state: &PathBuf| Store {
        root: state.join(TASKS),
        depth: 2,
        file: Files::Named(file),
        id: IdIn::Directory(2),
        runtime: Some(Runtime::Containerd),
        is_users: false,
    };
    states.iter().map(store).collect()
}

/// The runtime of a bundle's container, unless its annotations know better.
fn runtime(store: &Store, bundle: &Path) -> Option<Runtime> {
    let namespace = bundle.parent().and_then(Path::file_name);
    // Docker's own namespace in a containerd: the name is in docker's file.
    if namespace.is_some_and(|name| name == "moby") { Some(Runtime::Docker) } else { store.runtime }
}

pub struct Containerd {
    stores: Vec<Store>,
}

impl Containerd {
    /// `states`: containerd's state directories, by default `/run/containerd`.
    pub fn new(states: &[PathBuf]) -> Self {
        Self { stores: stores(states, "config.json") }
    }
}

impl Backend for Containerd {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let (mut annotations, placement) = oci::parse(content)?;
        let bundle = path.parent().ok_or("no bundle")?;
        let mut cri = |key: &str| said(annotations.remove(&format!("io.kubernetes.cri.{key}")));
        let pod = Pod {
            name: cri("sandbox-name"),
            namespace: cri("sandbox-namespace"),
            uid: cri("sandbox-uid"),
            labels: None,
        };
        let (name, image, kind) = (cri("container-name"), cri("image-name"), cri("container-type"));
        let is_nerdctl = annotations.keys().any(|key| key.starts_with("nerdctl/"));
        let runtime = match runtime(store, bundle) {
            Some(Runtime::Containerd) if is_nerdctl => Some(Runtime::Nerdctl),
            runtime => runtime,
        };
        let container = Container {
            id: id_of(path)?,
            name: name.or_else(|| said(annotations.remove("nerdctl/name"))),
            runtime,
            image,
            labels: BTreeMap::new(),
            pod: (pod != Pod::default()).then_some(pod),
            is_sandbox: kind.as_deref() == Some("sandbox"),
        };
        let bundle = Some(bundle.to_owned());
        Ok(vec![Metadata { bundle, placement, ..Metadata::new(path, container) }])
    }
}

/// The first process of the task whose bundle that is; absent where it was not started yet.
pub fn init(bundle: &Path) -> Option<Init> {
    let content = file::read(&bundle.join(INIT), file::MAX_USERS_BYTES).ok()??;
    parse_init(&content.bytes)
}

fn parse_init(content: &[u8]) -> Option<Init> {
    let pid = std::str::from_utf8(content).ok()?.trim().parse().ok()?;
    Some(Init { pid, start_ticks: None })
}

/// The pid of each task's first process, whatever low-level runtime started it.
pub struct InitPid {
    stores: Vec<Store>,
}

impl InitPid {
    /// As [`Containerd::new`].
    pub fn new(states: &[PathBuf]) -> Self {
        Self { stores: stores(states, INIT) }
    }
}

impl Backend for InitPid {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, store: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let init = parse_init(content).ok_or("no pid")?;
        let bundle = path.parent().ok_or("no bundle")?;
        let runtime = runtime(store, bundle);
        let container = Container { id: id_of(path)?, runtime, ..Container::default() };
        Ok(vec![Metadata {
            bundle: Some(bundle.to_owned()),
            init: Some(init),
            ..Metadata::new(path, container)
        }])
    }
}
