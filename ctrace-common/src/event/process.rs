//! Processes that come and go.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Header, TaskIdentity};

/// Longest file name that is read, the NUL included; longer ones are cut.
pub const MAX_FILENAME: usize = 512;
/// Bytes of the arguments that are read; more are cut.
pub const MAX_ARGS: usize = 1024;

/// A process outside the host's mount namespace was forked. Threads are left out.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fork {
    pub header: Header,
    /// The child, still with its parent's name.
    pub child: TaskIdentity,
}

/// A process runs another program. The file's name follows, with its NUL, then the arguments, each
/// with its NUL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exec {
    pub header: Header,
    pub process: TaskIdentity,
    /// Thread id that called execve, which took over the process's: differs from the process id
    /// where it was not the leader.
    pub old_tid: u32,
    /// Bytes of the file's name, NUL included; 0: it could not be read.
    pub filename_len: u32,
    /// Bytes of arguments read.
    pub args_len: u32,
    /// Bytes of arguments that there are.
    pub args_total: u32,
}

/// The record with room for everything: what the eBPF program fills.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ExecBuffer {
    pub exec: Exec,
    /// The arguments begin where the file's name ends.
    pub text: [u8; MAX_FILENAME + MAX_ARGS],
}

/// The last thread of a process ends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Exit {
    pub header: Header,
    pub process: TaskIdentity,
    /// As wait(2) gives it: the signal in the low 7 bits, 0x80 with a core dump, the exit code in
    /// bits 8 to 15.
    pub status: u32,
    /// Reserved, zero.
    pub reserved: u32,
}
