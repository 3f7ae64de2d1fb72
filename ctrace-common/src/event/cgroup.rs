//! Cgroups that come and go, and the path of one, as the kernel had it when an event named it.
//!
//! The path goes to the ring before the event that names the cgroup, so that an event of a cgroup
//! that is gone a moment later still has its path, also where the record of its making was lost.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Header;

/// Levels that are read, leaf first; deeper hierarchies lose their outermost levels and say so.
pub const MAX_DEPTH: usize = 16;
/// Longest name of one level, the NUL included; `NAME_MAX` of cgroupfs.
pub const MAX_NAME: usize = 256;
/// Room for all names of a path.
pub const MAX_NAMES: usize = MAX_DEPTH * MAX_NAME;

/// The fixed part of the record. The names of the `depth` levels follow, leaf first, each with its
/// NUL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupPath {
    pub header: Header,
    /// `cgroup_root.hierarchy_id`: 0 is v2.
    pub hierarchy: u32,
    /// Levels below the root of the hierarchy that were read, at most [`MAX_DEPTH`].
    pub depth: u16,
    /// 1 where there were more levels than were read.
    pub truncated: u16,
    /// kernfs ids, leaf first; the first `depth` are valid.
    pub ids: [u64; MAX_DEPTH],
}

/// The record with room for every name: what the eBPF program fills.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CgroupPathBuffer {
    pub path: CgroupPath,
    pub names: [u8; MAX_NAMES + MAX_NAME],
}

/// A cgroup was made, removed, freed or renamed: the record's kind says which. Its name follows,
/// with its NUL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CgroupChange {
    pub header: Header,
    /// kernfs id.
    pub id: u64,
    /// kernfs id of the cgroup above it; 0 where it is not known any more.
    pub parent: u64,
    /// `cgroup_root.hierarchy_id`: 0 is v2.
    pub hierarchy: u32,
    /// Levels below the root.
    pub level: u32,
}

/// The record with room for the longest name: what the eBPF program fills.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CgroupChangeBuffer {
    pub change: CgroupChange,
    pub name: [u8; MAX_NAME],
}
