//! Pods and containers of Kubernetes, by the container runtime interface (CRI) version 1:
//! containerd, CRI-O and cri-dockerd serve it.
//!
//! The messages have only the fields that are used, with the numbers of
//! `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`; protobuf skips the others.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};
use hyper::body::Bytes;
use prost::Message;

use super::{MAX_ENTRIES, pod_of_labels, reference, said};
use crate::event::{self, Pod};

pub const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
pub const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";

/// Without a filter: all, in whatever state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListContainersResponse {
    /// Each is a [`Container`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub containers: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "4")]
    pub image: Option<ImageSpec>,
    #[prost(btree_map = "string, string", tag = "8")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageSpec {
    /// What the runtime was asked for: the kubelet asks for an image's id.
    #[prost(string, tag = "1")]
    pub image: String,
    /// Since version 1.29 of the interface.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
}

/// Without a filter: all, in whatever state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// Each is a [`PodSandbox`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub items: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// The containers with their pods, and the pods' own sandboxes, which have a cgroup and an id like
/// a container.
pub fn enriched(
    containers: ListContainersResponse,
    sandboxes: ListPodSandboxResponse,
) -> Result<Vec<event::Container>> {
    let containers: Vec<Container> = decode(containers.containers)?;
    let sandboxes: Vec<PodSandbox> = decode(sandboxes.items)?;
    let pods: HashMap<String, Pod> = sandboxes
        .into_iter()
        .map(|PodSandbox { id, metadata, labels }| {
            let PodSandboxMetadata { name, uid, namespace } = metadata.unwrap_or_default();
            let (name, namespace, uid) = (said(name), said(namespace), said(uid));
            (id, Pod { name, namespace, uid, labels: Some(labels) })
        })
        .collect();
    let containers = containers.into_iter().map(|container| {
        let Container { id, pod_sandbox_id, metadata, image, labels } = container;
        let ImageSpec { image, user_specified_image } = image.unwrap_or_default();
        event::Container {
            id,
            pod: pods.get(&pod_sandbox_id).cloned().or_else(|| pod_of_labels(&labels)),
            labels,
            name: metadata.and_then(|metadata| said(metadata.name)),
            image: reference(user_specified_image).or_else(|| reference(image)),
            ..event::Container::default()
        }
    });
    let mut all: Vec<_> = containers.collect();
    all.extend(pods.into_iter().map(|(id, pod)| event::Container {
        id,
        pod: Some(pod),
        ..event::Container::default()
    }));
    all.retain(|enriched| !enriched.id.is_empty());
    Ok(all)
}

/// Decodes as many as one answer may have.
fn decode<M: Message + Default>(messages: Vec<Bytes>) -> Result<Vec<M>> {
    ensure!(messages.len() <= MAX_ENTRIES, "{} entries in one answer", messages.len());
    messages.into_iter().map(|bytes| Ok(M::decode(bytes)?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    /// Bytes as a runtime sends them, with fields that are not read: `state` (6) of a container.
    #[test]
    fn the_field_numbers_are_those_of_the_interface() {
        let mut bytes = vec![0x0a, 0x02, b'c', b'1', 0x12, 0x02, b's', b'1'];
        bytes.extend([0x1a, 0x03, 0x0a, 0x01, b'n']);
        // image: image = "i", user_specified_image (18) = "u"
        bytes.extend([0x22, 0x07, 0x0a, 0x01, b'i', 0x92, 0x01, 0x01, b'u']);
        bytes.extend([0x30, 0x01, 0x42, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, b'v']);
        let container = Container::decode(bytes.as_slice()).expect("protobuf");
        let expected = Container {
            id: "c1".into(),
            pod_sandbox_id: "s1".into(),
            metadata: Some(ContainerMetadata { name: "n".into() }),
            image: Some(ImageSpec { image: "i".into(), user_specified_image: "u".into() }),
            labels: labels(&[("k", "v")]),
        };
        assert_eq!(container, expected);

        let mut bytes = vec![0x0a, 0x02, b's', b'1'];
        bytes.extend([0x12, 0x09, 0x0a, 0x01, b'p', 0x12, 0x01, b'u', 0x1a, 0x01, b'n']);
        bytes.extend([0x2a, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, b'v', 0x3a, 0x01, b'h']);
        let sandbox = PodSandbox::decode(bytes.as_slice()).expect("protobuf");
        let (name, uid, namespace) = ("p".into(), "u".into(), "n".into());
        let metadata = Some(PodSandboxMetadata { name, uid, namespace });
        assert_eq!(
            sandbox,
            PodSandbox { id: "s1".into(), metadata, labels: labels(&[("k", "v")]) }
        );
    }

    #[test]
    fn a_container_has_its_sandbox_as_its_pod() {
        let container = Container {
            id: "c1".into(),
            pod_sandbox_id: "s1".into(),
            metadata: Some(ContainerMetadata { name: "app".into() }),
            image: Some(ImageSpec { image: "sha256:00".into(), ..ImageSpec::default() }),
            labels: labels(&[("own", "1")]),
        };
        let metadata =
            PodSandboxMetadata { name: "web".into(), uid: "u".into(), namespace: String::new() };
        let sandbox = PodSandbox {
            id: "s1".into(),
            metadata: Some(metadata),
            labels: labels(&[("app", "web")]),
        };
        let orphan = Container {
            id: "c2".into(),
            pod_sandbox_id: "gone".into(),
            labels: labels(&[("io.kubernetes.pod.name", "old")]),
            ..Container::default()
        };
        let containers = [container, orphan, Container::default()];
        let containers = containers.map(|container| container.encode_to_vec().into()).into();
        let items = [sandbox, PodSandbox::default()];
        let items = items.map(|sandbox| sandbox.encode_to_vec().into()).into();
        let all = enriched(ListContainersResponse { containers }, ListPodSandboxResponse { items })
            .expect("two lists");
        let pod = Pod {
            name: Some("web".into()),
            namespace: None,
            uid: Some("u".into()),
            labels: Some(labels(&[("app", "web")])),
        };
        let expected = [
            event::Container {
                id: "c1".into(),
                labels: labels(&[("own", "1")]),
                pod: Some(pod.clone()),
                name: Some("app".into()),
                ..event::Container::default()
            },
            event::Container {
                id: "c2".into(),
                labels: labels(&[("io.kubernetes.pod.name", "old")]),
                pod: Some(Pod { name: Some("old".into()), ..Pod::default() }),
                ..event::Container::default()
            },
            event::Container { id: "s1".into(), pod: Some(pod), ..event::Container::default() },
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn one_container_too_many_is_refused() {
        let containers = vec![Bytes::new(); MAX_ENTRIES + 1];
        let list = ListContainersResponse { containers: containers[1..].to_vec() };
        let no_pods = ListPodSandboxResponse::default;
        assert_eq!(enriched(list, no_pods()).expect("as many as may be"), []);
        assert!(enriched(ListContainersResponse { containers }, no_pods()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let containers = ListContainersResponse::decode(bytes.as_slice()).unwrap_or_default();
            let sandboxes = ListPodSandboxResponse::decode(bytes.as_slice()).unwrap_or_default();
            let _ = enriched(containers, sandboxes);
        }
    }
}
