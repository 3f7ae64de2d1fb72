//! Whose an event is: the answer of attribution.

use std::sync::Arc;

use super::{CgroupKey, Container};

/// How the container, or that there is none, was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// The cgroup's path names the container and the runtime's metadata confirms it.
    Cgroup,
    /// The cgroup's path names the container, but no metadata was found: the id is all there is.
    CgroupPath,
    /// The mount namespace is the container's; the cgroup is not, or not yet.
    Namespace,
    /// The process's mounts name the container: it was told to have no cgroup of its own.
    Mountinfo,
    /// A process that it descends from is the container's.
    Lineage,
    /// The cgroup is that of a runtime's helper (conmon, `lxc.monitor`), not the container's.
    RuntimeHelper,
    /// A thread of the kernel's own, on nobody's behalf that is known.
    Kernel,
    /// The cgroup is a systemd unit's, and no container's.
    Unit,
    /// The cgroup is the root or a slice: nobody's in particular.
    Host,
    /// The cgroup is not known, or is of nobody that ctrace knows.
    #[default]
    Unknown,
}

impl Via {
    pub const ALL: [Via; 10] = [
        Via::Cgroup,
        Via::CgroupPath,
        Via::Namespace,
        Via::Mountinfo,
        Via::Lineage,
        Via::RuntimeHelper,
        Via::Kernel,
        Via::Unit,
        Via::Host,
        Via::Unknown,
    ];

    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Via::Cgroup => "cgroup",
            Via::CgroupPath => "cgroup_path",
            Via::Namespace => "namespace",
            Via::Mountinfo => "mountinfo",
            Via::Lineage => "lineage",
            Via::RuntimeHelper => "runtime_helper",
            Via::Kernel => "kernel",
            Via::Unit => "unit",
            Via::Host => "host",
            Via::Unknown => "unknown",
        }
    }
}

/// Where a process is on its way into a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the container's cgroup, not yet in its mount namespace: the runtime sets it up.
    RuntimeInit,
    /// In the container's mount namespace, not in its cgroup: `docker exec` or `nsenter`.
    Joining,
}

impl Phase {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::RuntimeInit => "runtime_init",
            Phase::Joining => "joining",
        }
    }
}

/// Whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// The innermost container.
    pub container: Option<Arc<Container>>,
    /// The containers around it, outermost first.
    pub outer: Vec<Arc<Container>>,
    /// How the container is known, or that there is none.
    pub via: Via,
    pub phase: Option<Phase>,
    /// The host's systemd unit that the cgroup is in, where it is no container's.
    pub unit: Option<Arc<str>>,
    /// The cgroup that the answer is from, and its path; where that path is not known, another of the
    /// cgroups whose path is.
    pub path: Option<(CgroupKey, Arc<str>)>,
    /// Metadata of the container may still come.
    pub is_partial: bool,
}

impl Attribution {
    /// The container and those around it, innermost first.
    pub fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.container.iter().chain(self.outer.iter().rev())
    }
}
