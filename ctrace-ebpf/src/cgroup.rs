//! Which cgroups a task is in, and their paths.

use aya_ebpf::{helpers::generated::bpf_probe_read_kernel_str, macros::map, maps::PerCpuArray};
use ctrace_common::{
    Kind,
    event::cgroup::{CgroupPath, CgroupPathBuffer, MAX_DEPTH, MAX_NAME},
    offsets::CgroupOffsets,
};

use crate::{
    emit,
    kernel::{Address, Global, global},
};

#[unsafe(no_mangle)]
pub static CGROUP_OFFSETS: Global<CgroupOffsets> = Global::new(CgroupOffsets::UNKNOWN);

#[map]
static CGROUP_PATH: PerCpuArray<CgroupPathBuffer> = PerCpuArray::with_max_entries(1, 0);

/// A `struct cgroup`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cgroup(Address);

impl Cgroup {
    /// The cgroup of a `struct cgroup_subsys_state`.
    #[inline(always)]
    pub fn of_css(css: Address) -> Self {
        Self(css.follow(global!(CGROUP_OFFSETS, css_cgroup)))
    }

    /// The `struct cgroup` at this address.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(Address(address))
    }

    /// Its kernfs id; 0 where it is unknown.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.node().read(global!(CGROUP_OFFSETS, kn_id))
    }

    /// The kernfs id of the cgroup above it; 0 at the root.
    #[inline(always)]
    pub fn parent_id(self) -> u64 {
        let parent = self.node().follow(global!(CGROUP_OFFSETS, kn_parent));
        parent.read(global!(CGROUP_OFFSETS, kn_id))
    }

    /// Its level below the root.
    #[inline(always)]
    pub fn level(self) -> u32 {
        self.0.read(global!(CGROUP_OFFSETS, cgroup_level))
    }

    /// Its `struct kernfs_node`.
    #[inline(always)]
    fn node(self) -> Address {
        self.0.follow(global!(CGROUP_OFFSETS, cgroup_kn))
    }

    /// Reads its name, with its NUL; returns the bytes read, 0 where it cannot be read.
    #[inline(always)]
    pub fn read_name(self, name: &mut [u8; MAX_NAME]) -> usize {
        let text = self.node().follow(global!(CGROUP_OFFSETS, kn_name));
        // SAFETY: the helper writes at most MAX_NAME bytes.
        let length = unsafe {
            bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), MAX_NAME as u32, text.0 as *const _)
        };
        if (0..=MAX_NAME as i64).contains(&length) { length as usize } else { 0 }
    }

    /// The number of its hierarchy; 0 is v2.
    #[inline(always)]
    pub fn hierarchy(self) -> u32 {
        let root = self.0.follow(global!(CGROUP_OFFSETS, cgroup_root));
        root.read(global!(CGROUP_OFFSETS, root_hierarchy))
    }

    /// Sends its path to the ring of the rare events.
    #[inline(always)]
    pub fn emit_path(self) {
        emit_cgroup_path(self.0.0);
    }
}

/// [`Cgroup::emit_path`]. A global function of scalars: the verifier checks it once, apart from its
/// callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_cgroup_path(cgroup: u64) -> u64 {
    let cgroup = Cgroup(Address(cgroup));
    let Some(buffer) = CGROUP_PATH.get_ptr_mut(0) else { return 0 };
    // SAFETY: the buffer belongs to this program on this CPU until it returns.
    let CgroupPathBuffer { path, names } = unsafe { &mut *buffer };
    let mut kn = cgroup.0.follow(global!(CGROUP_OFFSETS, cgroup_kn));
    let mut depth: u16 = 0;
    let mut used: usize = 0;
    let mut parent = kn.follow(global!(CGROUP_OFFSETS, kn_parent));
    path.ids = [0; MAX_DEPTH];
    for level in 0..MAX_DEPTH {
        // The root of the hierarchy has no parent and no name.
        if parent.is_null() {
            break;
        }
        path.ids[level] = kn.read(global!(CGROUP_OFFSETS, kn_id));
        let name = kn.follow(global!(CGROUP_OFFSETS, kn_name));
        // SAFETY: `used` is at most MAX_NAMES, and MAX_NAME bytes follow that place.
        let length = unsafe {
            bpf_probe_read_kernel_str(
                names.as_mut_ptr().add(used).cast(),
                MAX_NAME as u32,
                name.0 as *const _,
            )
        };
        // What lies above an unreadable name cannot be placed either: the path stays truncated.
        if length <= 0 || length > MAX_NAME as i64 {
            break;
        }
        used += length as usize;
        depth += 1;
        kn = parent;
        parent = kn.follow(global!(CGROUP_OFFSETS, kn_parent));
    }
    let size = size_of::<CgroupPath>() + used;
    path.header = emit::header(Kind::CgroupPath, size);
    path.hierarchy = cgroup.hierarchy();
    path.depth = depth;
    path.truncated = !parent.is_null() as u16;
    emit::send_sized(Kind::CgroupPath, buffer);
    0
}

/// The cgroups of a task that ctrace names it by.
#[derive(Clone, Copy)]
pub struct TaskCgroups {
    /// In the v2 hierarchy.
    pub v2: Cgroup,
    /// In the v1 hierarchy that stands for the task; NULL on a pure v2 host.
    pub v1: Cgroup,
    /// The memory controller's `cgroup_subsys_state`.
    pub memory_css: Address,
}

impl TaskCgroups {
    /// Reads them from a `struct css_set`.
    #[inline(always)]
    pub fn of_css_set(css_set: Address) -> Self {
        Self {
            v2: Cgroup(css_set.follow(global!(CGROUP_OFFSETS, css_set_dfl))),
            v1: Cgroup::of_css(css_set.follow(global!(CGROUP_OFFSETS, css_set_v1))),
            memory_css: css_set.follow(global!(CGROUP_OFFSETS, css_set_memory)),
        }
    }

    /// Sends the path of each of them, each cgroup once.
    #[inline(always)]
    pub fn emit_paths(&self) {
        let memory = Cgroup::of_css(self.memory_css);
        self.v2.emit_path();
        if !self.v1.0.is_null() {
            self.v1.emit_path();
        }
        if memory != self.v1 && memory != self.v2 && !memory.0.is_null() {
            memory.emit_path();
        }
    }

    /// Whether both tasks have the same cgroups, so that the paths need not be sent twice.
    #[inline(always)]
    pub fn same_as(&self, other: &Self) -> bool {
        self.v2 == other.v2 && self.v1 == other.v1 && self.memory_css == other.memory_css
    }
}
