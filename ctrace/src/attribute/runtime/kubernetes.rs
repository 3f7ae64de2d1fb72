//! Kubernetes, whatever the runtime: the labels that the kubelet gives to all containers (kubelet
//! `pkg/kubelet/types/labels.go`), and its links to their logs,
//! `/var/log/containers/<pod>_<namespace>_<container>-<id>.log` (kubelet
//! `pkg/kubelet/kuberuntime/legacy.go`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{Backend, Files, IdIn, Metadata, Store, said};
use crate::attribute::cgroup::is_hex64;
use crate::event::{Container, Pod};

/// The kubelet's name for a container of its own making: the pause container.
const SANDBOX_NAME: &str = "POD";

/// The pod in the kubelet's labels.
pub fn pod(labels: &BTreeMap<String, String>) -> Option<Pod> {
    let label = |key: &str| said(labels.get(&format!("io.kubernetes.pod.{key}")).cloned());
    let pod =
        Pod { name: label("name"), namespace: label("namespace"), uid: label("uid"), labels: None };
    (pod != Pod::default()).then_some(pod)
}

/// The container's name in the kubelet's labels.
pub fn container_name(labels: &BTreeMap<String, String>) -> Option<String> {
    let name = said(labels.get("io.kubernetes.container.name").cloned());
    name.filter(|name| name != SANDBOX_NAME)
}

/// The pod in `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`, the name that cri-dockerd and CRI-O
/// give to a container; Kubernetes allows none of the parts an underscore.
pub fn pod_of_name(name: &str) -> Option<Pod> {
    let mut parts = name.strip_prefix("k8s_")?.split('_').skip(1);
    let (pod, namespace, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let some = |text: &str| said(Some(text.to_owned()));
    Some(Pod { name: some(pod), namespace: some(namespace), uid: some(uid), labels: None })
}

/// The names of the log files. They know neither runtime nor image, but outlive both.
pub struct Logs {
    stores: Vec<Store>,
}

impl Logs {
    /// `directories`: by default `/var/log/containers`.
    pub fn new(directories: &[PathBuf]) -> Self {
        let store = |root: &PathBuf| Store {
            root: root.clone(),
            depth: 0,
            file: Files::Names,
            id: IdIn::FileName,
            runtime: None,
            is_users: false,
        };
        Self { stores: directories.iter().map(store).collect() }
    }
}

impl Backend for Logs {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Other names are not the kubelet's, and no error.
    fn parse(&self, store: &Store, path: &Path, _: &[u8]) -> Result<Vec<Metadata>, String> {
        let name = path.file_name().and_then(OsStr::to_str);
        let container = name.and_then(of_log);
        let container = container.map(|it| Container { runtime: store.runtime, ..it });
        Ok(container.map(|container| Metadata::new(path, container)).into_iter().collect())
    }
}

fn of_log(file: &str) -> Option<Container> {
    let (words, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let words: Vec<&str> = words.split('_').collect();
    let [pod, namespace, name] = words[..] else { return None };
    if !is_hex64(id) || [pod, namespace, name].contains(&"") {
        return None;
    }
    Some(Container {
        id: id.to_owned(),
        name: Some(name.to_owned()),
        pod: Some(Pod {
            name: Some(pod.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Pod::default()
        }),
        ..Container::default()
    })
}
