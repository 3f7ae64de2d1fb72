//! Who an event belongs to.

use std::collections::BTreeMap;

use super::field::{Field, Type, Value, object};

/// A container, as far as it is known. Absent facts are absent, never guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id: 64 hexadecimal digits, or free text (`ctr`, `runc`).
    pub id: String,
    /// The name its user gave it.
    pub name: Option<String>,
    /// Which runtime, where the metadata or the cgroup's name says so.
    pub runtime: Option<Runtime>,
    /// Image reference, as the user gave it.
    pub image: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub pod: Option<Pod>,
    /// It holds a pod's namespaces and does nothing else: `pause`, podman's infra container.
    pub is_sandbox: bool,
}

/// The pod of a container: Kubernetes' or podman's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: Option<String>,
    pub namespace: Option<String>,
    /// What Kubernetes calls its UID; with podman the pod's id.
    pub uid: Option<String>,
    /// Absent where the runtime was not asked: they are on no disk.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A container runtime or engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    Docker,
    Containerd,
    CriO,
    Podman,
    Nerdctl,
    Runc,
    Crun,
    Lxc,
    Nspawn,
}

impl Runtime {
    /// The name in events and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Nerdctl => "nerdctl",
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
            Runtime::Lxc => "lxc",
            Runtime::Nspawn => "nspawn",
        }
    }
}

impl Container {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "id",
            ty: Type::Text,
            doc: "The runtime's id",
            get: |container| (&container.id).into(),
        },
        Field {
            name: "name",
            ty: Type::Text,
            doc: "The name its user gave it; null: unknown",
            get: |container| container.name.as_ref().into(),
        },
        Field {
            name: "runtime",
            ty: Type::Text,
            doc: "docker, containerd, cri-o, podman, nerdctl, runc, crun, lxc or nspawn; null: \
                  unknown",
            get: |container| container.runtime.map(Runtime::name).into(),
        },
        Field {
            name: "image",
            ty: Type::Text,
            doc: "Image reference; null: unknown",
            get: |container| container.image.as_ref().into(),
        },
        Field {
            name: "labels",
            ty: Type::Object,
            doc: "Its labels",
            get: |container| labels(&container.labels),
        },
        Field {
            name: "pod",
            ty: Type::Object,
            doc: "Its pod; null: none known",
            get: |container| container.pod.as_ref().map(|pod| object(Pod::FIELDS, pod)).into(),
        },
        Field {
            name: "sandbox",
            ty: Type::Flag,
            doc: "Whether it is a pod's pause container, not a workload",
            get: |container| Value::Flag(container.is_sandbox),
        },
    ];

    /// Adds what `other` says of the same container and is not known here: what is known stays.
    pub fn fill(&mut self, other: &Container) {
        let Container { id: _, name, runtime, image, labels, pod, is_sandbox } = other;
        self.is_sandbox |= is_sandbox;
        if self.labels.is_empty() {
            self.labels.clone_from(labels);
        }
        self.name = self.name.take().or_else(|| name.clone());
        self.runtime = self.runtime.or(*runtime);
        self.image = self.image.take().or_else(|| image.clone());
        let Some(Pod { name, namespace, uid, labels }) = pod else { return };
        let known = self.pod.get_or_insert_default();
        // Two pods of one container: one is somebody else's.
        if known.uid.is_some() && uid.is_some() && known.uid != *uid {
            return;
        }
        known.name = known.name.take().or_else(|| name.clone());
        known.namespace = known.namespace.take().or_else(|| namespace.clone());
        known.uid = known.uid.take().or_else(|| uid.clone());
        known.labels = known.labels.take().or_else(|| labels.clone());
    }

    /// Its name, else the first 12 characters of its id; of a pod's pause container, its pod's.
    pub fn label(&self) -> String {
        let own = || self.name.clone().unwrap_or_else(|| self.short_id());
        match &self.pod {
            _ if !self.is_sandbox => own(),
            Some(Pod { name: Some(pod), .. }) => format!("pause of pod {pod}"),
            Some(_) | None => format!("pause {}", own()),
        }
    }

    /// The first 12 characters of its id.
    pub fn short_id(&self) -> String {
        self.id.chars().take(12).collect()
    }

    /// All that names it, in a line.
    pub fn describe(&self) -> String {
        let name = self.name.as_deref();
        let mut line = match (self.is_sandbox, name) {
            (false, name) => name.unwrap_or("name unknown").to_owned(),
            (true, Some(name)) => format!("{name}, a pod's pause container"),
            (true, None) => "a pod's pause container".to_owned(),
        };
        let runtime = self.runtime.map_or("runtime unknown", Runtime::name);
        line += &format!(", {runtime} {}", self.short_id());
        if let Some(image) = &self.image {
            line += &format!(", image {image}");
        }
        if let Some(Pod { name: Some(name), namespace, .. }) = &self.pod {
            let namespace = namespace.as_deref().unwrap_or("?");
            line += &format!(", pod {namespace}/{name}");
        }
        line
    }
}

impl Pod {
    pub(super) const FIELDS: &'static [Field<Self>] = &[
        Field { name: "name", ty: Type::Text, doc: "Name", get: |pod| pod.name.as_ref().into() },
        Field {
            name: "namespace",
            ty: Type::Text,
            doc: "Kubernetes namespace",
            get: |pod| pod.namespace.as_ref().into(),
        },
        Field {
            name: "uid",
            ty: Type::Text,
            doc: "UID; podman: the pod's id",
            get: |pod| pod.uid.as_ref().into(),
        },
        Field {
            name: "labels",
            ty: Type::Object,
            doc: "Its labels, where the runtime was asked: null otherwise",
            get: |pod| pod.labels.as_ref().map(labels).into(),
        },
    ];
}

fn labels(labels: &BTreeMap<String, String>) -> Value<'_> {
    Value::Object(labels.iter().map(|(key, value)| (key.into(), value.into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_container_stays() {
        let text = |text: &str| Some(text.to_owned());
        let labels = || BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let pod =
            Pod { name: text("p"), namespace: text("n"), uid: text("u"), labels: Some(labels()) };
        let other = Container {
            id: "c".to_owned(),
            labels: labels(),
            pod: Some(pod.clone()),
            name: text("new"),
            image: text("image"),
            ..Container::default()
        };
        let mut container = Container { name: text("old"), ..Container::default() };
        container.fill(&other);
        assert_eq!((&container.name, &container.image), (&text("old"), &text("image")));
        assert_eq!((&container.labels, &container.pod), (&labels(), &Some(pod)));

        let stranger = Some(Pod { uid: text("another"), ..Pod::default() });
        let mut container = Container { pod: stranger.clone(), ..Container::default() };
        container.fill(&other);
        assert_eq!(container.pod, stranger);
    }

    fn pause(name: Option<&str>, pod: Option<&str>) -> Container {
        Container {
            id: "0123456789abcdef".into(),
            name: name.map(Into::into),
            runtime: Some(Runtime::Containerd),
            pod: pod.map(|pod| Pod {
                name: Some(pod.into()),
                namespace: Some("prod".into()),
                ..Pod::default()
            }),
            is_sandbox: true,
            ..Container::default()
        }
    }

    #[test]
    fn a_pause_container_is_called_one() {
        let of_pod = pause(None, Some("web-0"));
        assert_eq!(of_pod.label(), "pause of pod web-0");
        let line = "a pod's pause container, containerd 0123456789ab, pod prod/web-0";
        assert_eq!(of_pod.describe(), line);
        let infra = pause(Some("e24d7bff9966-infra"), None);
        assert_eq!(infra.label(), "pause e24d7bff9966-infra");
        assert!(infra.describe().starts_with("e24d7bff9966-infra, a pod's pause container, "));
        assert_eq!(pause(None, None).label(), "pause 0123456789ab");
    }

    #[test]
    fn a_workload_is_called_by_its_name() {
        let web = Container { is_sandbox: false, ..pause(Some("web"), Some("web-0")) };
        assert_eq!(web.label(), "web");
        assert_eq!(web.describe(), "web, containerd 0123456789ab, pod prod/web-0");
    }
}
