//! Tasks that sleep and cannot be woken by signals.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::TaskIdentity;

/// Frames of a kernel stack that are read.
pub const STACK_DEPTH: usize = 48;

/// A task in uninterruptible sleep, as the task iterator writes it. It goes through no ring.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockedTask {
    pub task: TaskIdentity,
    /// The run queue's clock now, nanoseconds.
    pub clock_ns: u64,
    /// When it got a CPU last, by that clock.
    pub arrived_ns: u64,
    /// When it went to sleep, by that clock, or a little later: by the time that interrupts and the
    /// hypervisor took of its CPU since. 0: unknown.
    pub left_ns: u64,
    /// How often it has left a CPU, in its life.
    pub switches: u64,
    /// `TASK_*` of `include/linux/sched.h`
    pub state: u32,
    /// The CPU that it was on.
    pub cpu: u32,
    /// Bytes of `stack` that are filled.
    pub stack_len: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// Where it sleeps, innermost first.
    pub stack: [u64; STACK_DEPTH],
}
