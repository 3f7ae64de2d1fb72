//! A system call that a seccomp filter denied or logged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{COMM_LEN, Header, TaskIdentity};

/// What became of the call. On the wire it is the `u16` of [`Seccomp::action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Action {
    /// `SECCOMP_RET_ERRNO`: it returned an error, or 0, without being made.
    Errno = 1,
    /// `SECCOMP_RET_TRAP`: SIGSYS.
    Trap = 2,
    /// `SECCOMP_RET_KILL_THREAD`
    KillThread = 3,
    /// `SECCOMP_RET_KILL_PROCESS`
    KillProcess = 4,
    /// `SECCOMP_RET_LOG`: it was made.
    Log = 5,
    /// It returned an error without being made, and a supervisor listens to one of the filters
    /// (`SECCOMP_RET_USER_NOTIF`): the error may be the filter's or the supervisor's.
    Unknown = 6,
}

impl Action {
    pub const ALL: [Action; 6] = [
        Action::Errno,
        Action::Trap,
        Action::KillThread,
        Action::KillProcess,
        Action::Log,
        Action::Unknown,
    ];
}

impl TryFrom<u16> for Action {
    type Error = u16;

    fn try_from(number: u16) -> Result<Self, u16> {
        Action::ALL.into_iter().find(|action| *action as u16 == number).ok_or(number)
    }
}

/// How it was seen. On the wire it is the `u16` of [`Seccomp::via`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Via {
    /// The return of `__secure_computing`.
    SecureComputing = 1,
    /// A `sys_exit` without its `sys_enter`.
    Pairing = 2,
    /// The SIGSYS that the kernel sent.
    Signal = 3,
    /// The end of the thread.
    Exit = 4,
    /// A call of `audit_seccomp`.
    AuditSeccomp = 5,
}

impl Via {
    pub const ALL: [Via; 5] =
        [Via::SecureComputing, Via::Pairing, Via::Signal, Via::Exit, Via::AuditSeccomp];
}

impl TryFrom<u16> for Via {
    type Error = u16;

    fn try_from(number: u16) -> Result<Self, u16> {
        Via::ALL.into_iter().find(|via| *via as u16 == number).ok_or(number)
    }
}

/// One denial, and in the maps `SECCOMP_FOLDS` those that were counted after it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Seccomp {
    pub header: Header,
    /// How many. In a record 1; in a map those that no record was sent of.
    pub count: u64,
    pub process: TaskIdentity,
    /// The arguments, as the registers had them.
    pub args: [u64; 6],
    /// The system call's number in the table of its ABI.
    pub nr: i32,
    /// [`Action::Errno`], [`Action::Unknown`]: the error's number, 0 for none. A signal: the filter's
    /// `SECCOMP_RET_DATA`. Else 0.
    pub data: u32,
    /// An [`Action`].
    pub action: u16,
    /// A [`Via`].
    pub via: u16,
    /// Bits: the constants of [`Seccomp`].
    pub flags: u16,
    /// Not 0: those that were counted are of more than one process.
    pub several: u16,
}

impl Seccomp {
    /// The call was made through the 32-bit entry of a 64-bit kernel.
    pub const COMPAT: u16 = 1;
    /// `data` was read.
    pub const HAS_DATA: u16 = 2;
}

/// A process with a filter that has ended. A value of the map `SECCOMP_ENDED`, by process id.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ended {
    /// When: `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    pub process: TaskIdentity,
}

/// What denials have in common that are counted together. A key of the maps `SECCOMP_FOLDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FoldKey {
    pub cgroup_v2: u64,
    pub cgroup_v1: u64,
    pub mnt_ns: u32,
    /// The process, where only some processes are wanted; else 0.
    pub tgid: u32,
    pub comm: [u8; COMM_LEN],
    pub nr: i32,
    pub data: u32,
    pub action: u16,
    pub via: u16,
    pub flags: u16,
    pub reserved: u16,
}
