//! What all records share.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Length of `task_struct.comm`, the trailing NUL included.
pub const COMM_LEN: usize = 16;

/// What a record is. On the wire it is the `u16` of [`Header::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The path of a cgroup: [`crate::event::cgroup::CgroupPath`].
    CgroupPath = 1,
    /// An OOM victim: [`crate::event::oom::OomKill`].
    OomKill = 2,
    /// A cgroup was made: [`crate::event::cgroup::CgroupChange`].
    CgroupMkdir = 3,
    /// A cgroup's directory was removed: [`crate::event::cgroup::CgroupChange`].
    CgroupRmdir = 4,
    /// A cgroup was freed, after its last reference: [`crate::event::cgroup::CgroupChange`].
    CgroupRelease = 5,
    /// A cgroup of v1 was renamed: [`crate::event::cgroup::CgroupChange`].
    CgroupRename = 6,
    /// A process was forked: [`crate::event::process::Fork`].
    Fork = 7,
    /// A process runs another program: [`crate::event::process::Exec`].
    Exec = 8,
    /// The last thread of a process ends, where all ends are asked for:
    /// [`crate::event::process::Exit`].
    Exit = 9,
    /// A seccomp filter denied a system call: [`crate::event::seccomp::Seccomp`].
    Seccomp = 10,
    /// A signal was sent: [`crate::event::signal::Signal`].
    Signal = 11,
    /// A block device has finished an I/O: [`crate::event::block::Block`].
    Block = 12,
    /// A task got a CPU after it had waited for one: [`crate::event::runq::RunqDelay`].
    RunqDelay = 13,
    /// The last thread of a process ends that a signal has ended, or that is the first of its pid
    /// namespace: [`crate::event::process::Exit`].
    Death = 14,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 14] = [
        Kind::CgroupPath,
        Kind::OomKill,
        Kind::CgroupMkdir,
        Kind::CgroupRmdir,
        Kind::CgroupRelease,
        Kind::CgroupRename,
        Kind::Fork,
        Kind::Exec,
        Kind::Exit,
        Kind::Seccomp,
        Kind::Signal,
        Kind::Block,
        Kind::RunqDelay,
        Kind::Death,
    ];
    /// Slots of a per-kind counter map: one more than the greatest kind.
    pub const SLOTS: u32 = 15;

    /// The name used for the kind in `lost` events and summaries.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::CgroupPath => "cgroup_path",
            Kind::OomKill => "oom_kill",
            Kind::CgroupMkdir => "cgroup_mkdir",
            Kind::CgroupRmdir => "cgroup_rmdir",
            Kind::CgroupRelease => "cgroup_release",
            Kind::CgroupRename => "cgroup_rename",
            Kind::Fork => "fork",
            Kind::Exec => "exec",
            Kind::Exit | Kind::Death => "exit",
            Kind::Seccomp => "seccomp",
            Kind::Signal => "signal",
            Kind::Block => "block",
            Kind::RunqDelay => "runq_delay",
        }
    }

    /// The ring that carries it.
    pub const fn ring(self) -> Ring {
        match self {
            Kind::CgroupPath | Kind::OomKill | Kind::Seccomp | Kind::Signal | Kind::Death => {
                Ring::Rare
            }
            Kind::CgroupMkdir
            | Kind::CgroupRmdir
            | Kind::CgroupRelease
            | Kind::CgroupRename
            | Kind::Fork => Ring::Lifecycle,
            // Of their own, so that a flood of them cannot take the room of what attribution
            // lives on.
            Kind::Exec | Kind::Exit | Kind::Block | Kind::RunqDelay => Ring::Bulk,
        }
    }
}

/// A ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Rare, precious events.
    Rare,
    /// Cgroups that come and go, and processes that no cgroup tells of: what attribution lives on.
    Lifecycle,
    /// High rates.
    Bulk,
}

impl Ring {
    /// The name used for the ring in `lost` events and summaries.
    pub const fn name(self) -> &'static str {
        match self {
            Ring::Rare => "rare",
            Ring::Lifecycle => "lifecycle",
            Ring::Bulk => "bulk",
        }
    }
}

/// A record whose kind this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKind(pub u16);

impl TryFrom<u16> for Kind {
    type Error = UnknownKind;

    fn try_from(kind: u16) -> Result<Self, UnknownKind> {
        Kind::ALL.into_iter().find(|k| *k as u16 == kind).ok_or(UnknownKind(kind))
    }
}

/// The first 16 bytes of every record.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// When it happened: `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// A [`Kind`].
    pub kind: u16,
    /// Reserved, zero.
    pub flags: u16,
    /// Bytes of the whole record, this header included.
    pub size: u32,
}

/// Who a task is: read from the task itself, never from whoever was running.
///
/// A field that the kernel does not have is 0 (no pid, namespace inode or cgroup id is ever 0; uid
/// has [`TaskIdentity::HAS_UID`]).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TaskIdentity {
    /// Start of the thread group's leader: `CLOCK_BOOTTIME`, nanoseconds.
    pub start_boottime_ns: u64,
    /// The same of the parent's; with its pid the key of a process.
    pub parent_start_boottime_ns: u64,
    /// kernfs id of its cgroup in the v2 hierarchy.
    pub cgroup_v2: u64,
    /// kernfs id of its cgroup in [`TaskIdentity::hierarchy_v1`].
    pub cgroup_v1: u64,
    /// Number of the mount namespace, never used again (`ns_common.ns_id`, before 6.18
    /// `mnt_namespace.seq`). Inodes are: three successive containers had the same one.
    pub mnt_ns_id: u64,
    /// The same of the network namespace (`ns_common.ns_id`, before 6.18 `net.net_cookie`, from
    /// 5.12 on).
    pub net_ns_id: u64,
    /// The same of the pid namespace (`ns_common.ns_id`, from 6.18 on).
    pub pid_ns_id: u64,
    /// Number of the v1 hierarchy that stands for the task; 0 on a pure v2 host.
    pub hierarchy_v1: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Process id of the parent.
    pub ppid: u32,
    /// Real user id in the initial user namespace.
    pub uid: u32,
    /// Process id in the task's own pid namespace.
    pub pid_in_ns: u32,
    /// Inode of the pid namespace.
    pub pid_ns: u32,
    /// Inode of the mount namespace.
    pub mnt_ns: u32,
    /// Inode of the network namespace.
    pub net_ns: u32,
    /// Bits: the constants of [`TaskIdentity`].
    pub flags: u16,
    /// How many pid namespaces are around its own; 0: it is in the initial one.
    pub pid_ns_level: u16,
    /// Name of the task, NUL-padded, any bytes.
    pub comm: [u8; COMM_LEN],
}

impl TaskIdentity {
    /// `uid` was read.
    pub const HAS_UID: u16 = 1;
    /// It is a thread of the kernel's own.
    pub const KERNEL_THREAD: u16 = 2;
}
