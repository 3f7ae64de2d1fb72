//! Who an event is about: the process, its cgroups, its container.

use std::sync::Arc;

use ctrace_common::{COMM_LEN, TaskIdentity};

use super::{
    Container,
    field::{Field, Type, Value, object},
    text,
};

/// A cgroup, named by hierarchy and id: ids are unique in one hierarchy only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupKey {
    /// `cgroup_root.hierarchy_id`; 0 is v2.
    pub hierarchy: u32,
    /// kernfs id.
    pub id: u64,
}

/// A process as the kernel had it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id in the initial pid namespace; absent where only the thread is known.
    pub pid: Option<u32>,
    pub tid: u32,
    pub ppid: Option<u32>,
    pub comm: Option<String>,
    pub uid: Option<u32>,
    /// Process id in its own pid namespace.
    pub container_pid: Option<u32>,
    /// Start of the process, nanoseconds since boot.
    pub start_boottime_ns: Option<u64>,
}

/// Inodes of the namespaces of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub pid: Option<u32>,
    pub mnt: Option<u32>,
    pub net: Option<u32>,
}

/// The cgroup that an event is counted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    pub key: CgroupKey,
    /// From the root of its hierarchy; absent where the cgroup is gone and its path was lost.
    pub path: Option<Arc<str>>,
}

/// How the container, or that there is none, was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// The cgroup's path names the container and the runtime's metadata confirms it.
    Cgroup,
    /// The cgroup's path names the container, but no metadata was found: the id is all there is.
    CgroupPath,
    /// The cgroup is that of a runtime's helper (conmon, `lxc.monitor`), not the container's.
    RuntimeHelper,
    /// The cgroup is a systemd unit's, and no container's.
    Unit,
    /// The cgroup is the root or a slice: nobody's in particular.
    Host,
    /// The cgroup is not known, or is of nobody that ctrace knows.
    #[default]
    Unknown,
}

impl Via {
    pub const ALL: [Via; 6] =
        [Via::Cgroup, Via::CgroupPath, Via::RuntimeHelper, Via::Unit, Via::Host, Via::Unknown];

    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Via::Cgroup => "cgroup",
            Via::CgroupPath => "cgroup_path",
            Via::RuntimeHelper => "runtime_helper",
            Via::Unit => "unit",
            Via::Host => "host",
            Via::Unknown => "unknown",
        }
    }
}

/// The process that an event is about, with all that identifies its container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub process: Process,
    pub namespaces: Namespaces,
    /// Its cgroup in the v2 hierarchy.
    pub v2: Option<CgroupKey>,
    /// Its cgroup in the v1 hierarchy that stands for the task.
    pub v1: Option<CgroupKey>,
    /// The cgroup that the event is counted on: the memory controller's for an OOM kill.
    pub cgroup: Option<Cgroup>,
    pub container: Option<Arc<Container>>,
    /// Containers around it, outermost first.
    pub outer: Vec<Arc<Container>>,
    /// The systemd unit, where there is no container.
    pub unit: Option<String>,
    pub via: Via,
}

impl Subject {
    /// The subject that a wire record names; `owner` is the cgroup that the event is counted on.
    pub fn of_record(identity: &TaskIdentity, owner: Option<CgroupKey>) -> Self {
        let TaskIdentity {
            start_boottime_ns,
            cgroup_v2,
            cgroup_v1,
            hierarchy_v1,
            tgid,
            tid,
            ppid,
            uid,
            pid_in_ns,
            pid_ns,
            mnt_ns,
            net_ns,
            flags,
            comm,
        } = *identity;
        let key = |hierarchy, id| (id != 0).then_some(CgroupKey { hierarchy, id });
        Self {
            process: Process {
                pid: known(tgid),
                tid,
                ppid: known(ppid),
                comm: comm_text(&comm),
                uid: (flags & TaskIdentity::HAS_UID != 0).then_some(uid),
                container_pid: known(pid_in_ns),
                start_boottime_ns: (start_boottime_ns != 0).then_some(start_boottime_ns),
            },
            namespaces: Namespaces { pid: known(pid_ns), mnt: known(mnt_ns), net: known(net_ns) },
            v2: key(0, cgroup_v2),
            v1: key(hierarchy_v1, cgroup_v1),
            cgroup: owner.map(|key| Cgroup { key, path: None }),
            ..Self::default()
        }
    }

    /// The cgroups that may name its container, the one that the event is counted on first.
    pub fn cgroups(&self) -> impl Iterator<Item = CgroupKey> + use<'_> {
        [self.cgroup.as_ref().map(|cgroup| cgroup.key), self.v2, self.v1].into_iter().flatten()
    }

    /// The container's name or the start of its id, else the unit, else where the process is.
    pub fn label(&self) -> String {
        let path = self.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        match (&self.container, &self.unit, self.via, path) {
            (Some(container), ..) => container.label(),
            (None, _, Via::RuntimeHelper, _) => "container runtime".to_owned(),
            (None, Some(unit), ..) => unit.clone(),
            (None, None, Via::Host, _) => "host".to_owned(),
            (None, None, _, Some(path)) => format!("cgroup {}", text::path(path)),
            (None, None, _, None) => "unknown cgroup".to_owned(),
        }
    }
}

fn known(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

/// A task's name; bytes that are not UTF-8 become U+FFFD.
fn comm_text(comm: &[u8; COMM_LEN]) -> Option<String> {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    (end > 0).then(|| String::from_utf8_lossy(&comm[..end]).into_owned())
}

impl Process {
    /// `comm[pid]`, as far as they are known.
    pub fn label(&self) -> String {
        let pid = self.pid.unwrap_or(self.tid);
        match &self.comm {
            Some(comm) => format!("{comm}[{pid}]"),
            None => format!("pid {pid}"),
        }
    }

    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "pid",
            ty: Type::Number,
            doc: "Process id in the initial pid namespace",
            get: |process| process.pid.into(),
        },
        Field {
            name: "tid",
            ty: Type::Number,
            doc: "Thread id in the initial pid namespace",
            get: |process| process.tid.into(),
        },
        Field {
            name: "ppid",
            ty: Type::Number,
            doc: "Process id of the parent",
            get: |process| process.ppid.into(),
        },
        Field {
            name: "comm",
            ty: Type::Text,
            doc: "Name of the task; bytes that are not UTF-8 are U+FFFD",
            get: |process| process.comm.as_ref().into(),
        },
        Field {
            name: "uid",
            ty: Type::Number,
            doc: "Real user id in the initial user namespace",
            get: |process| process.uid.into(),
        },
        Field {
            name: "container_pid",
            ty: Type::Number,
            doc: "Process id in its own pid namespace",
            get: |process| process.container_pid.into(),
        },
        Field {
            name: "start_boottime_ns",
            ty: Type::Number,
            doc: "Start of the process, nanoseconds since boot; with pid it is unique",
            get: |process| process.start_boottime_ns.into(),
        },
    ];
}

impl Namespaces {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "pid",
            ty: Type::Number,
            doc: "Inode of the pid namespace",
            get: |namespaces| namespaces.pid.into(),
        },
        Field {
            name: "mnt",
            ty: Type::Number,
            doc: "Inode of the mount namespace",
            get: |namespaces| namespaces.mnt.into(),
        },
        Field {
            name: "net",
            ty: Type::Number,
            doc: "Inode of the network namespace",
            get: |namespaces| namespaces.net.into(),
        },
    ];
}

/// The `cgroup` object of an event.
pub const CGROUP_FIELDS: &[Field<Subject>] = &[
    Field {
        name: "id",
        ty: Type::Number,
        doc: "kernfs id of the cgroup that the event is counted on: the memory controller's for an \
              OOM kill",
        get: |subject| subject.cgroup.as_ref().map(|cgroup| cgroup.key.id).into(),
    },
    Field {
        name: "hierarchy",
        ty: Type::Number,
        doc: "Number of that cgroup's hierarchy; 0 is v2. Ids are unique in one hierarchy only",
        get: |subject| subject.cgroup.as_ref().map(|cgroup| cgroup.key.hierarchy).into(),
    },
    Field {
        name: "path",
        ty: Type::Text,
        doc: "Its path from the root of its hierarchy",
        get: |subject| subject.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref()).into(),
    },
    Field {
        name: "v2_id",
        ty: Type::Number,
        doc: "kernfs id of the process's cgroup in the v2 hierarchy",
        get: |subject| subject.v2.map(|key| key.id).into(),
    },
    Field {
        name: "v1_id",
        ty: Type::Number,
        doc: "kernfs id of the process's cgroup in v1_hierarchy; null on a pure v2 host",
        get: |subject| subject.v1.map(|key| key.id).into(),
    },
    Field {
        name: "v1_hierarchy",
        ty: Type::Number,
        doc: "Number of the v1 hierarchy that stands for the process: the first mounted of pids, \
              memory, cpu, devices, freezer",
        get: |subject| subject.v1.map(|key| key.hierarchy).into(),
    },
    Field {
        name: "unit",
        ty: Type::Text,
        doc: "systemd unit, where there is no container",
        get: |subject| subject.unit.as_ref().into(),
    },
];

/// The `container` object of a subject: null where there is none or it is unknown.
pub fn container_value(subject: &Subject) -> Value<'_> {
    let Some(container) = &subject.container else { return Value::Null };
    let Value::Object(mut members) = object(Container::FIELDS, container.as_ref()) else {
        return Value::Null;
    };
    let outer = subject.outer.iter().map(|outer| object(Container::FIELDS, outer.as_ref()));
    members.push(("outer".into(), Value::List(outer.collect())));
    members.push(("via".into(), subject.via.name().into()));
    Value::Object(members)
}
