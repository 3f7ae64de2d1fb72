//! Signals.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Header, TaskIdentity};

/// A signal was sent to a task.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Signal {
    pub header: Header,
    /// Whom it was sent to, with its process's name.
    pub victim: TaskIdentity,
    /// The process that was running, with its name: who sent it, with [`Signal::HAS_SENDER`].
    pub running: TaskIdentity,
    /// `siginfo.si_addr`; 0 where the signal has none.
    pub address: u64,
    pub number: u32,
    /// `siginfo.si_code`; what the victim will see where the kernel gave a special pointer.
    pub code: i32,
    /// Why it was delivered or not: `TRACE_SIGNAL_*` of `include/trace/events/signal.h`.
    pub result: u32,
    /// Number of the system call that was refused, with SIGSYS; else 0.
    pub syscall: i32,
    /// Bits: the constants below.
    pub flags: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

impl Signal {
    /// It ends the process.
    pub const FATAL: u32 = 1;
    /// It ends the process if a thread other than the first takes it, or the tracer does not keep it
    /// from the process.
    pub const MAYBE_FATAL: u32 = 2;
    /// To the process, and not to one thread.
    pub const GROUP: u32 = 4;
    /// The running process sent it, or the kernel for it; else the kernel by itself did.
    pub const HAS_SENDER: u32 = 8;
    /// No `siginfo` was given, for the sender's own doings: `SEND_SIG_NOINFO`.
    pub const NO_INFO: u32 = 16;
    /// No `siginfo` was given, for the kernel's: `SEND_SIG_PRIV`.
    pub const PRIVILEGED: u32 = 32;
    /// The running task was on its way out: `PF_EXITING`.
    pub const RUNNING_EXITS: u32 = 64;
}
