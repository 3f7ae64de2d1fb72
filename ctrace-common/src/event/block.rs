//! I/O that a block device has finished.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{COMM_LEN, Header, Place, TaskIdentity};

/// Length of `gendisk.disk_name`, the trailing NUL included: `DISK_NAME_LEN`.
pub const DISK_NAME_LEN: usize = 32;

/// A request of a device that has been finished, or a bio where the device has no requests. The
/// header's time is that of the end.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Block {
    pub header: Header,
    /// The submitter, where it is in the owner's cgroup; else all zero.
    pub process: TaskIdentity,
    /// The owner's cgroup in the hierarchy of the io controller; its id is 0: unknown.
    pub owner: Place,
    /// First sector, in 512 bytes from the start of the disk; all ones: none.
    pub sector: u64,
    /// Bytes of all of it, those that failed included.
    pub bytes: u64,
    /// When its first bio was queued, `CLOCK_BOOTTIME`, nanoseconds; 0: unknown.
    pub queued_ns: u64,
    /// When it was given to the driver, for the last time; 0: it was not, or unknown.
    pub issued_ns: u64,
    /// The disk as the kernel numbers it: `major << 20 | minor`.
    pub device: u32,
    /// `bio.bi_opf` as it was queued, or `request.cmd_flags`: the operation in the low 8 bits.
    pub op_flags: u32,
    /// 0, or how it failed: a `blk_status_t`, or an errno below zero.
    pub status: i32,
    /// Bits: the constants of [`Block`].
    pub flags: u32,
    /// Process id of who queued it, in the initial pid namespace; 0: unknown.
    pub submitter_tgid: u32,
    /// Zero.
    pub reserved: u32,
    /// The name of the task that queued it, NUL-padded, any bytes.
    pub submitter_comm: [u8; COMM_LEN],
    /// `gendisk.disk_name`, NUL-terminated.
    pub disk: [u8; DISK_NAME_LEN],
}

impl Block {
    /// The owner is the cgroup that the kernel charges it to.
    pub const OWNER_BLKCG: u32 = 1;
    /// The kernel charges it to nobody: the owner is the submitter's cgroup.
    pub const OWNER_SUBMITTER: u32 = 2;
    /// The owner is the root of its hierarchy.
    pub const OWNER_IS_ROOT: u32 = 4;
    /// A thread of the kernel's own queued it.
    pub const SUBMITTER_IS_KERNEL: u32 = 8;
}
