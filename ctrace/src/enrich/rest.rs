//! Containers by REST: docker's interface (`docs.docker.com/reference/api/engine`) and podman's
//! (`docs.podman.io/en/latest/_static/api.html`, "libpod").

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Container, MAX_ENTRIES, pod_of_labels, reference, said};
use crate::event::Pod;

/// All containers in docker's oldest form that has what is wanted, and in the oldest that docker 29
/// and later still answer.
pub const DOCKER_CONTAINERS: [&str; 2] =
    ["/v1.24/containers/json?all=1", "/v1.44/containers/json?all=1"];

pub const PODMAN_CONTAINERS: &str = "/v4.0.0/libpod/containers/json?all=true";
pub const PODMAN_PODS: &str = "/v4.0.0/libpod/pods/json";

type Labels = Option<BTreeMap<String, String>>;

/// A list with no more entries than one answer may have.
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_ENTRIES}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = entries.next_element()? {
                    if list.len() == MAX_ENTRIES {
                        return Err(Error::invalid_length(list.len() + 1, &self));
                    }
                    list.push(entry);
                }
                Ok(List(list))
            }
        }

        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

/// A container in docker's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerContainer {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    labels: Labels,
}

/// A container in podman's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanContainer {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: Option<String>,
    #[serde(default)]
    labels: Labels,
    /// Its pod's id; empty: in no pod.
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    pod_name: Option<String>,
}

/// A pod in podman's list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PodmanPod {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    labels: Labels,
}

/// Reads docker's list.
pub fn docker(containers: &[u8]) -> serde_json::Result<Vec<Container>> {
    let List::<DockerContainer>(containers) = serde_json::from_slice(containers)?;
    let containers = containers.into_iter().filter(|container| !container.id.is_empty());
    Ok(containers
        .map(|DockerContainer { id, names, image, labels }| {
            let labels = labels.unwrap_or_default();
            Container {
                id,
                name: names.unwrap_or_default().iter().find_map(|name| docker_name(name)),
                image: image.and_then(reference),
                pod: pod_of_labels(&labels),
                labels,
                ..Container::default()
            }
        })
        .collect())
}

/// Its own name is `/name`; `/other/name` is what another container calls it by a link.
fn docker_name(name: &str) -> Option<String> {
    let name = name.strip_prefix('/').unwrap_or(name);
    said(name.to_owned()).filter(|name| !name.contains('/'))
}

/// Reads podman's lists.
pub fn podman(containers: &[u8], pods: &[u8]) -> serde_json::Result<Vec<Container>> {
    let List::<PodmanContainer>(containers) = serde_json::from_slice(containers)?;
    // With no pod at all the list may be null.
    let pods: Option<List<PodmanPod>> = serde_json::from_slice(pods)?;
    let pods = pods.map(|List(pods)| pods).unwrap_or_default();
    let pods: HashMap<String, PodmanPod> =
        pods.into_iter().map(|pod| (pod.id.clone(), pod)).collect();
    let containers = containers.into_iter().filter(|container| !container.id.is_empty());
    Ok(containers
        .map(|PodmanContainer { id, names, image, labels, pod, pod_name }| Container {
            id,
            labels: labels.unwrap_or_default(),
            pod: pod.and_then(said).map(|id| podman_pod(id, pod_name, &pods)),
            name: names.unwrap_or_default().into_iter().find_map(said),
            image: image.and_then(reference),
            ..Container::default()
        })
        .collect())
}

fn podman_pod(id: String, name: Option<String>, pods: &HashMap<String, PodmanPod>) -> Pod {
    let listed = pods.get(&id);
    let listed_name = || listed.and_then(|pod| pod.name.clone()).and_then(said);
    Pod {
        name: name.and_then(said).or_else(listed_name),
        namespace: None,
        labels: listed.map(|pod| pod.labels.clone().unwrap_or_default()),
        uid: Some(id),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn bytes(json: &Value) -> Vec<u8> {
        serde_json::to_vec(json).expect("JSON")
    }

    #[test]
    fn docker_names_a_container_by_its_own_name() {
        let list = json!([
            {"Id": "a", "Names": ["/other/db", "/web"], "Image": "nginx:1", "Created": 1,
             "Labels": {"io.kubernetes.pod.name": "p", "io.kubernetes.pod.uid": "u"}},
            {"Id": "b", "Names": null, "Image": "sha256:00", "Labels": null},
            {"Id": ""},
        ]);
        let [web, bare] = docker(&bytes(&list)).expect("a list").try_into().expect("two");
        assert_eq!((web.name.as_deref(), web.image.as_deref()), (Some("web"), Some("nginx:1")));
        let (name, uid) = (Some("p".into()), Some("u".into()));
        assert_eq!(web.pod, Some(Pod { name, uid, ..Pod::default() }));
        assert_eq!(bare, Container { id: "b".into(), ..Container::default() });
    }

    #[test]
    fn podman_joins_containers_and_pods() {
        let containers = json!([
            {"Id": "a", "Names": ["web"], "Image": "localhost/web:1", "Labels": {"k": "v"},
             "Pod": "p1", "PodName": "front", "Pid": 0},
            {"Id": "b", "Names": ["lone"], "Labels": null, "Pod": "", "PodName": ""},
            {"Id": "c", "Pod": "gone"},
        ]);
        let pods = json!([{"Id": "p1", "Name": "front", "Labels": {"app": "web"}}]);
        let list = podman(&bytes(&containers), &bytes(&pods)).expect("lists");
        let [web, lone, late] = list.try_into().expect("three");
        let pod = web.pod.expect("a pod");
        assert_eq!(pod.name.as_deref(), Some("front"));
        assert_eq!(pod.uid.as_deref(), Some("p1"));
        assert_eq!(pod.labels, Some([("app".to_owned(), "web".to_owned())].into()));
        assert_eq!(web.labels["k"], "v");
        assert_eq!(lone.pod, None);
        assert_eq!(late.pod, Some(Pod { uid: Some("gone".into()), ..Pod::default() }));
        assert!(podman(&bytes(&containers), b"null").is_ok());
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        let hostile = ["", "{}", "[{}]", "[{\"Id\":1}]", "[{\"Id\":\"a\",\"Labels\":[]}]", "nul"];
        let deep = "[".repeat(100_000);
        for text in hostile.into_iter().chain([deep.as_str()]) {
            assert!(docker(text.as_bytes()).is_err(), "{text:.40}");
            assert!(podman(text.as_bytes(), b"[]").is_err(), "{text:.40}");
            assert!(podman(b"[]", text.as_bytes()).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn one_entry_too_many_is_refused() {
        let list = |count| bytes(&Value::from(vec![json!({"Id": "a"}); count]));
        assert_eq!(docker(&list(MAX_ENTRIES)).expect("a list").len(), MAX_ENTRIES);
        let error = docker(&list(MAX_ENTRIES + 1)).expect_err("one too many").to_string();
        assert!(error.contains("expected a list of at most 65536"), "{error}");
        assert!(podman(b"[]", &list(MAX_ENTRIES + 1)).is_err());
    }

    /// JSON that may look like a list, more often than random bytes do.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
        ];
        let key = prop_oneof!["Id|Names|Image|Labels|Pod|PodName|Name", "\\PC*"];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(containers: Vec<u8>, pods: Vec<u8>) {
            let _ = docker(&containers);
            let _ = podman(&containers, &pods);
            let _ = podman(b"[]", &pods);
        }

        #[test]
        fn no_json_panics(containers in any_json(), pods in any_json()) {
            let (containers, pods) = (bytes(&containers), bytes(&pods));
            let _ = docker(&containers);
            let _ = podman(&containers, &pods);
            let _ = podman(b"[]", &pods);
        }

        /// Labels, names and ids come through as they are, whatever characters they have.
        #[test]
        fn all_text_is_kept(
            id in "\\PC+", name in "[^/]+", image in "[a-z/:.]+",
            labels in prop::collection::btree_map("\\PC*", any::<String>(), 0..8),
        ) {
            let docker_list =
                json!([{"Id": &id, "Names": [format!("/{name}")], "Image": &image, "Labels": &labels}]);
            let podman_list =
                json!([{"Id": &id, "Names": [&name], "Image": &image, "Labels": &labels}]);
            let (name, image) = (Some(name), Some(image));
            let expected = Container { id, labels, name, image, ..Container::default() };
            prop_assume!(pod_of_labels(&expected.labels).is_none());
            prop_assert_eq!(docker(&bytes(&docker_list)).expect("a list"), [expected.clone()]);
            prop_assert_eq!(podman(&bytes(&podman_list), b"[]").expect("lists"), [expected]);
        }
    }
}
