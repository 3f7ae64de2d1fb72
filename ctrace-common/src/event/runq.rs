//! Tasks that waited for a CPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Header, TaskIdentity};

/// What the collector asks of the program: the read-only global `RUNQ_SETTINGS`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RunqSettings {
    /// Delays of at least so many nanoseconds are sent.
    pub slower_ns: u64,
    /// Number of the v1 hierarchy that stands for a task; 0 on a pure v2 host.
    pub hierarchy_v1: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

/// A task got a CPU after it had waited for one.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RunqDelay {
    pub header: Header,
    /// The task that waited.
    pub task: TaskIdentity,
    /// The one that ran on the CPU just before; with the pid 0 the CPU was idle.
    pub before: TaskIdentity,
    /// From runnable to running, on whatever CPUs it waited, nanoseconds.
    pub delay_ns: u64,
    /// The CPU that it got.
    pub cpu: u32,
    /// Bits: the constants of [`RunqDelay`].
    pub flags: u32,
}

impl RunqDelay {
    /// Whether it was preempted is known.
    pub const HAS_PREEMPTED: u32 = 1;
    /// It had been running until it waited; else it had been asleep.
    pub const PREEMPTED: u32 = 2;
    /// Whether its cgroup's quota was used up in the meantime is known.
    pub const HAS_THROTTLED: u32 = 4;
    /// It was.
    pub const THROTTLED: u32 = 8;
}
