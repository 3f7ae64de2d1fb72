//! CRI-O and podman: the OCI bundles in containers/storage,
//! `<storage>/<driver>-containers/<id>/userdata/config.json`, CRI-O's in the run root and podman's in
//! the graph root.
//!
//! The annotations are CRI-O's (`cri-o/internal/annotations`); the kubelet's labels are JSON in one
//! of them. podman writes some of the same keys, and says `io.container.manager=libpod`: its bundle
//! knows neither name nor image, which are in its list (`podman`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::podman::directories;
use super::{Backend, Files, IdIn, Metadata, Store, kubernetes, oci, said};
use crate::event::{Container, Pod, Runtime};

/// Directory of a container that holds its bundle.
const BUNDLE: &str = "userdata";

pub struct CriO {
    stores: Vec<Store>,
}

impl CriO {
    /// `storages`: containers/storage's graph and run roots.
    pub fn new(storages: &[PathBuf]) -> Self {
        let store = |root: PathBuf| Store {
            root,
            depth: 2,
            file: Files::Named("config.json"),
            id: IdIn::Directory(1),
            runtime: None,
            is_users: false,
        };
        Self { stores: directories(storages).map(store).collect() }
    }
}

impl Backend for CriO {
    fn stores(&self) -> &[Store] {
        &self.stores
    }

    fn parse(&self, _: &Store, path: &Path, content: &[u8]) -> Result<Vec<Metadata>, String> {
        let bundle = path.parent().ok_or("no bundle")?;
        if bundle.file_name().is_none_or(|name| name != BUNDLE) {
            return Ok(Vec::new());
        }
        let id = super::safe_name(bundle.parent())?;
        let (mut annotations, placement) = oci::parse(content)?;
        let container = match annotations.get("io.container.manager").map(String::as_str) {
            Some("libpod") => {
                Container { id, runtime: Some(Runtime::Podman), ..Container::default() }
            }
            // Versions before 1.17 do not say.
            Some("cri-o") | None if annotations.contains_key(&crio("ContainerType")) => {
                of_crio(id, &mut annotations)?
            }
            _ => Container { id, ..Container::default() },
        };
        let bundle = Some(bundle.to_owned());
        Ok(vec![Metadata { bundle, placement, ..Metadata::new(path, container) }])
    }
}

fn crio(key: &str) -> String {
    format!("io.kubernetes.cri-o.{key}")
}

fn of_crio(id: String, annotations: &mut BTreeMap<String, String>) -> Result<Container, String> {
    let mut take = |key: &str| said(annotations.remove(&crio(key)));
    if take("ContainerID").is_some_and(|other| other != id) {
        return Err("the file is another container's".into());
    }
    let labels = take("Labels").and_then(|json| serde_json::from_str(&json).ok());
    let labels: BTreeMap<String, String> = labels.unwrap_or_default();
    let is_sandbox = take("ContainerType").as_deref() == Some("sandbox");
    let (image, image_name) = (take("Image"), take("ImageName"));
    // Older versions have the container's own name in `ContainerName`, newer ones in `Name`.
    let long = [take("Name"), take("ContainerName")];
    let long = long.into_iter().flatten().find(|name| name.starts_with("k8s_"));
    let (kube_name, namespace, metadata) = (take("KubeName"), take("Namespace"), take("Metadata"));
    let said_pod = Pod { name: kube_name, namespace, uid: None, labels: None };
    // The labels are also annotations of their own.
    let pod = kubernetes::pod(&labels)
        .or_else(|| kubernetes::pod(annotations))
        .or_else(|| (!is_sandbox).then(|| kubernetes::pod_of_name(long.as_deref()?)).flatten())
        .or_else(|| (said_pod != Pod::default()).then_some(said_pod));
    let name = kubernetes::container_name(&labels)
        .or_else(|| kubernetes::container_name(annotations))
        .or_else(|| name_in(&metadata?));
    Ok(Container {
        id,
        name: name.filter(|_| !is_sandbox),
        runtime: Some(Runtime::CriO),
        // `Image` may be an id.
        image: image_name.or(image),
        labels,
        pod,
        is_sandbox,
    })
}

/// The name in CRI's `ContainerMetadata`, as Go writes it: `{"Name":"web"}` or `{"name":"web"}`.
fn name_in(json: &str) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_str(json).ok()?;
    let name = metadata.get("name").or_else(|| metadata.get("Name"))?;
    said(name.as_str().map(Into::into))
}
