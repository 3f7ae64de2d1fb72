//! Who an event is about: the process, its cgroups, its container.

use std::sync::Arc;

use ctrace_common::{COMM_LEN, TaskIdentity};

use super::{
    Attribution, Container, Phase, Via,
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
    /// The same of its parent.
    pub parent_start_boottime_ns: Option<u64>,
    /// It is a thread of the kernel's own.
    pub is_kernel_thread: bool,
}

/// The namespaces of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub pid: Namespace,
    pub mnt: Namespace,
    pub net: Namespace,
    /// Its pid namespace is not the host's.
    pub is_pid_nested: bool,
    /// How many pid namespaces are around its own.
    pub pid_level: u32,
}

/// A namespace. An inode is used again as soon as it is free, an id never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace {
    pub inode: Option<u32>,
    /// The kernel's own number of it, where it has one.
    pub id: Option<u64>,
}

/// The cgroup that an event is counted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    pub key: CgroupKey,
    /// From the root of its hierarchy; absent where the cgroup is gone and its path was lost.
    pub path: Option<Arc<str>>,
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
    /// Whose it is.
    pub attribution: Arc<Attribution>,
}

impl Subject {
    /// The subject that a wire record names; `owner` is the cgroup that the event is counted on.
    pub fn of_record(identity: &TaskIdentity, owner: Option<CgroupKey>) -> Self {
        let TaskIdentity {
            start_boottime_ns,
            parent_start_boottime_ns,
            cgroup_v2,
            cgroup_v1,
            mnt_ns_id,
            net_ns_id,
            pid_ns_id,
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
            pid_ns_level,
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
                start_boottime_ns: known_wide(start_boottime_ns),
                parent_start_boottime_ns: known_wide(parent_start_boottime_ns),
                is_kernel_thread: flags & TaskIdentity::KERNEL_THREAD != 0,
            },
            namespaces: Namespaces {
                pid: Namespace { inode: known(pid_ns), id: known_wide(pid_ns_id) },
                mnt: Namespace { inode: known(mnt_ns), id: known_wide(mnt_ns_id) },
                net: Namespace { inode: known(net_ns), id: known_wide(net_ns_id) },
                is_pid_nested: pid_ns_level != 0,
                pid_level: pid_ns_level.into(),
            },
            v2: key(0, cgroup_v2),
            v1: key(hierarchy_v1, cgroup_v1),
            cgroup: owner.map(|key| Cgroup { key, path: None }),
            ..Self::default()
        }
    }

    /// A cgroup, and no process in particular.
    pub fn of_cgroup(key: CgroupKey) -> Self {
        Self { cgroup: Some(Cgroup { key, path: None }), ..Self::default() }
    }

    /// Whether it is a process, and not only a cgroup. No task has the id 0.
    pub fn is_process(&self) -> bool {
        self.process.tid != 0
    }

    /// The cgroups that may name its container, the one that the event is counted on first.
    pub fn cgroups(&self) -> impl Iterator<Item = CgroupKey> + use<'_> {
        [self.cgroup.as_ref().map(|cgroup| cgroup.key), self.v2, self.v1].into_iter().flatten()
    }

    /// The innermost container.
    pub fn container(&self) -> Option<&Arc<Container>> {
        self.attribution.container.as_ref()
    }

    /// The container's name or the start of its id, else the unit, else where the process is.
    pub fn label(&self) -> String {
        let path = self.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
        let Attribution { container, unit, via, phase, .. } = &*self.attribution;
        match (container, unit, via, path) {
            (Some(container), ..) => match phase {
                None => container.label(),
                Some(Phase::RuntimeInit) => format!("{} (runtime)", container.label()),
                Some(Phase::Joining) => format!("{} (joining)", container.label()),
            },
            (None, _, Via::Kernel, _) => "kernel".to_owned(),
            (None, _, Via::RuntimeHelper, _) => "container runtime".to_owned(),
            (None, Some(unit), ..) => unit.to_string(),
            (None, None, Via::Host, _) => "host".to_owned(),
            (None, None, _, Some(path)) => format!("cgroup {}", text::path(path)),
            (None, None, _, None) => "unknown cgroup".to_owned(),
        }
    }
}

fn known(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

fn known_wide(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

/// A task's name; bytes that are not UTF-8 become U+FFFD.
pub fn comm_text(comm: &[u8; COMM_LEN]) -> Option<String> {
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
            get: |namespaces| namespaces.pid.inode.into(),
        },
        Field {
            name: "pid_id",
            ty: Type::Number,
            doc: "The kernel's own number of it, never used again; null before Linux 6.18",
            get: |namespaces| namespaces.pid.id.into(),
        },
        Field {
            name: "mnt",
            ty: Type::Number,
            doc: "Inode of the mount namespace",
            get: |namespaces| namespaces.mnt.inode.into(),
        },
        Field {
            name: "mnt_id",
            ty: Type::Number,
            doc: "The kernel's own number of it, never used again",
            get: |namespaces| namespaces.mnt.id.into(),
        },
        Field {
            name: "net",
            ty: Type::Number,
            doc: "Inode of the network namespace",
            get: |namespaces| namespaces.net.inode.into(),
        },
        Field {
            name: "net_id",
            ty: Type::Number,
            doc: "The kernel's own number of it, never used again; null before Linux 5.12",
            get: |namespaces| namespaces.net.id.into(),
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
        get: |subject| subject.attribution.unit.as_deref().into(),
    },
];

/// A process that an event names besides its own, with its container and cgroups.
pub fn subject_value(subject: &Subject) -> Value<'_> {
    let Value::Object(mut members) = object(Process::FIELDS, &subject.process) else {
        return Value::Null;
    };
    members.push(("container".into(), container_value(subject)));
    members.push(("attribution".into(), subject.attribution.via.name().into()));
    members.push(("cgroup".into(), object(CGROUP_FIELDS, subject)));
    Value::Object(members)
}

/// The `container` object of a subject: null where there is none or it is unknown.
pub fn container_value(subject: &Subject) -> Value<'_> {
    let Attribution { container, outer, via, phase, unit: _, path: _, is_partial: _ } =
        &*subject.attribution;
    let Some(container) = container else { return Value::Null };
    let Value::Object(mut members) = object(Container::FIELDS, container.as_ref()) else {
        return Value::Null;
    };
    let outer = outer.iter().map(|outer| object(Container::FIELDS, outer.as_ref()));
    members.push(("outer".into(), Value::List(outer.collect())));
    members.push(("via".into(), via.name().into()));
    members.push(("phase".into(), phase.map(Phase::name).into()));
    Value::Object(members)
}
