//! What the collector asks of the programs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The read-only global `SETTINGS`. Each is 0 where nothing is asked.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Inode of the host's mount namespace, which is never used again while the host runs.
    pub host_mnt_ns: u32,
    /// 1: events are left out whose task's cgroups and mount namespace are all
    /// [denied](Place::DENIED).
    pub filter_places: u32,
    /// 1: events are left out whose process is not in the map `PIDS`.
    pub filter_pids: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

/// A key of the map `PLACES`, where the collector says what it knows of cgroups and mount namespaces.
/// The value is a set of the bits below.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Place {
    /// kernfs id of a cgroup, or the kernel's own number of a mount namespace.
    pub id: u64,
    /// The cgroup's hierarchy, or [`Place::MNT_NS`].
    pub hierarchy: u32,
    /// Zero.
    pub reserved: u32,
}

impl Place {
    /// The place is a mount namespace.
    pub const MNT_NS: u32 = u32::MAX;
    /// Of the value: no event of it is wanted.
    pub const DENIED: u8 = 1;
    /// Of the value: the cgroup tells whose its processes are, without their ancestors.
    pub const TELLS: u8 = 2;

    pub const fn new(hierarchy: u32, id: u64) -> Self {
        Self { id, hierarchy, reserved: 0 }
    }
}
