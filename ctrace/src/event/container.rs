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
}

/// The Kubernetes pod of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
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
            get: |container| {
                let labels = container.labels.iter();
                Value::Object(labels.map(|(key, value)| (key.into(), value.into())).collect())
            },
        },
        Field {
            name: "pod",
            ty: Type::Object,
            doc: "Its Kubernetes pod: name, namespace, uid; null: none known",
            get: |container| container.pod.as_ref().map(|pod| object(Pod::FIELDS, pod)).into(),
        },
    ];

    /// Its name, else the first 12 characters of its id.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.short_id())
    }

    /// The first 12 characters of its id.
    pub fn short_id(&self) -> String {
        self.id.chars().take(12).collect()
    }

    /// All that names it, in a line.
    pub fn describe(&self) -> String {
        let mut line = self.name.clone().unwrap_or_else(|| "name unknown".to_owned());
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
    const FIELDS: &'static [Field<Self>] = &[
        Field { name: "name", ty: Type::Text, doc: "Name", get: |pod| pod.name.as_ref().into() },
        Field {
            name: "namespace",
            ty: Type::Text,
            doc: "Kubernetes namespace",
            get: |pod| pod.namespace.as_ref().into(),
        },
        Field { name: "uid", ty: Type::Text, doc: "UID", get: |pod| pod.uid.as_ref().into() },
    ];
}
