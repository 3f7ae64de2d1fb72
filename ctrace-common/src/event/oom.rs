//! An OOM victim.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cgroup::MAX_DEPTH;
use crate::{Header, TaskIdentity};

/// Return addresses kept of the trigger's kernel stack.
pub const STACK_DEPTH: usize = 32;
/// Counters of `enum memcg_memory_event` that are read.
pub const MEMORY_EVENTS: usize = 9;

/// Memory of the victim's address space. The kernel's counters may be below 0 for a moment.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VictimMemory {
    /// Pages of address space.
    pub total_vm_pages: u64,
    /// Pages of resident anonymous memory.
    pub anon_rss_pages: i64,
    /// Pages of resident file mappings.
    pub file_rss_pages: i64,
    /// Pages of resident shared memory.
    pub shmem_rss_pages: i64,
    /// Pages swapped out.
    pub swap_pages: i64,
    /// Bytes of page tables.
    pub pgtables_bytes: u64,
}

/// One level of the memory-cgroup chain.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemcgLevel {
    /// kernfs id in the memory controller's hierarchy.
    pub cgroup: u64,
    /// Pages charged.
    pub usage_pages: u64,
    /// Pages allowed; `PAGE_COUNTER_MAX` (`i64::MAX` / page size): no limit.
    pub max_pages: u64,
    /// v1: pages of memory and swap charged. v2: pages of swap.
    pub swap_usage_pages: u64,
    /// v1: pages of memory and swap allowed. v2: pages of swap.
    pub swap_max_pages: u64,
    /// Times the limit was hit: `memory.failcnt`; not counted on newer v2 kernels.
    pub failcnt: u64,
    /// [`MemcgLevel::OOM_LOCK`], [`MemcgLevel::OOM_GROUP`].
    pub flags: u32,
    /// v1: tasks below waiting in this level's OOM.
    pub under_oom: u32,
}

impl MemcgLevel {
    /// The kernel holds this level's OOM lock (`mem_cgroup.oom_lock`; kernels with memory cgroup v1).
    pub const OOM_LOCK: u32 = 1;
    /// `memory.oom.group` is set.
    pub const OOM_GROUP: u32 = 2;
}

/// One victim of the OOM killer, read at `mark_victim`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OomKill {
    pub header: Header,
    /// The victim; only `tid` is valid without [`OomKill::HAS_VICTIM`].
    pub victim: TaskIdentity,
    /// The task whose allocation called the OOM killer.
    pub trigger: TaskIdentity,
    pub memory: VictimMemory,
    /// kernfs id of `oom_control.memcg`, with [`OomKill::HAS_CONTROL`]; 0: no memory cgroup's limit
    /// was hit.
    pub oom_memcg: u64,
    /// `oom_control.gfp_mask`, with [`OomKill::HAS_CONTROL`].
    pub gfp_mask: u32,
    /// `oom_control.order`, with [`OomKill::HAS_CONTROL`]; -1: asked for through sysrq.
    pub order: i32,
    /// `oom_control.constraint`, with [`OomKill::HAS_CONTROL`].
    pub constraint: u32,
    /// Bits: the `HAS_` constants.
    pub flags: u32,
    /// Hierarchy of the memory controller: 0 is v2.
    pub memory_hierarchy: u32,
    /// `signal_struct.oom_score_adj`.
    pub oom_score_adj: i32,
    /// Levels read, leaf first.
    pub level_count: u32,
    /// Return addresses read.
    pub stack_len: u32,
    /// Nodes in the trigger's `mems_allowed`; its first 64 bits.
    pub mems_allowed: u64,
    /// `mempolicy.mode` of the trigger, with [`OomKill::HAS_MEMPOLICY`]; else 0.
    pub mempolicy_mode: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// First 64 bits of the mempolicy's nodes.
    pub mempolicy_nodes: u64,
    /// Memory cgroups from the victim's to the outermost that counts.
    pub levels: [MemcgLevel; MAX_DEPTH],
    /// `mem_cgroup.memory_events`, level by level, in the order of `enum memcg_memory_event`.
    pub events: [[u64; MEMORY_EVENTS]; MAX_DEPTH],
    /// kernfs ids of the trigger's memory cgroup and its ancestors, leaf first, 0 after the last.
    pub trigger_levels: [u64; MAX_DEPTH],
    /// The trigger's kernel stack, innermost first.
    pub stack: [u64; STACK_DEPTH],
}

impl OomKill {
    /// The victim's task was at hand; else only its pid is known.
    pub const HAS_VICTIM: u32 = 1;
    /// The victim's memory was read.
    pub const HAS_MEMORY: u32 = 2;
    /// `oom_control` was read by the hook on `out_of_memory`.
    pub const HAS_CONTROL: u32 = 4;
    /// The trigger has a mempolicy of its own.
    pub const HAS_MEMPOLICY: u32 = 8;
    /// There were more levels than [`MAX_DEPTH`].
    pub const LEVELS_TRUNCATED: u32 = 16;
    /// The levels are the trigger's, because the victim is known by pid alone.
    pub const LEVELS_OF_TRIGGER: u32 = 32;
    /// `mems_allowed` was read.
    pub const HAS_MEMS_ALLOWED: u32 = 64;
}
