//! What an event tells about whose it is.

use crate::event::{CgroupKey, Namespace, Subject};

/// A process: its id in the initial pid namespace, and its start in nanoseconds since boot.
pub type ProcessKey = (u32, u64);

/// All that attribution goes by. Equal identities have equal answers, but for what only the process
/// itself tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cgroup of the object that the event is about, such as the memory of an OOM kill.
    pub owner: Option<CgroupKey>,
    pub v2: Option<CgroupKey>,
    pub v1: Option<CgroupKey>,
    pub mnt_ns: Namespace,
    /// Its pid namespace is not the host's.
    pub is_pid_nested: bool,
    /// It is the first process of its pid namespace, which is not the host's.
    pub is_first_in_pid_ns: bool,
    pub is_kernel_thread: bool,
}

/// Which process it is, where the cgroups and the namespaces do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinship {
    pub process: Option<ProcessKey>,
    pub parent: Option<ProcessKey>,
}

impl Identity {
    pub fn of(subject: &Subject) -> Self {
        Self {
            owner: subject.cgroup.as_ref().map(|cgroup| cgroup.key),
            v2: subject.v2,
            v1: subject.v1,
            mnt_ns: subject.namespaces.mnt,
            is_pid_nested: subject.namespaces.is_pid_nested,
            is_first_in_pid_ns: subject.namespaces.is_pid_nested
                && subject.process.container_pid == Some(1),
            is_kernel_thread: subject.process.is_kernel_thread,
        }
    }

    /// The cgroups that may name the container, in order of preference.
    pub fn cgroups(&self) -> impl Iterator<Item = CgroupKey> + use<> {
        let Self { owner, v2, v1, .. } = *self;
        let v2 = v2.filter(|key| owner != Some(*key));
        let v1 = v1.filter(|key| owner != Some(*key));
        [owner, v2, v1].into_iter().flatten()
    }
}

impl Kinship {
    pub fn of(subject: &Subject) -> Self {
        let process = &subject.process;
        Self {
            process: process.pid.zip(process.start_boottime_ns),
            parent: process.ppid.zip(process.parent_start_boottime_ns),
        }
    }
}
