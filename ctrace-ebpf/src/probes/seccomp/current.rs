//! The running thread: its registers and its filters.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs,
};
use ctrace_common::offsets::MISSING;

use super::SECCOMP_OFFSETS;
use crate::{
    kernel::{Address, global},
    task::Task,
};

/// `seccomp.mode`: `include/uapi/linux/seccomp.h`
pub const FILTER: i32 = 2;
/// A filter has ended the thread; not in all kernels. `kernel/seccomp.c`
pub const DEAD: i32 = 3;

/// Filters that are looked at. The kernel allows more; a chain that long has a listener only by
/// intent.
const MAX_FILTERS: usize = 32;

/// The running thread.
pub struct Current {
    pub task: Task,
    /// Its `pt_regs`.
    regs: Address,
}

impl Current {
    /// With the registers of its entry into the kernel.
    #[inline(always)]
    pub fn new() -> Self {
        let this = Self::with_regs(Address::NULL);
        let regs = if global!(SECCOMP_OFFSETS, has_task_pt_regs) == 1 {
            // SAFETY: the helpers return the running task and its registers.
            Address(unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64)
        } else {
            let stack = this.task.0.follow(global!(SECCOMP_OFFSETS, stack));
            stack.member(global!(SECCOMP_OFFSETS, stack_to_regs))
        };
        Self { regs, ..this }
    }

    /// With registers that are at hand.
    #[inline(always)]
    pub fn with_regs(regs: Address) -> Self {
        // SAFETY: the helper returns the running task.
        Self { task: Task(Address(unsafe { bpf_get_current_task() })), regs }
    }

    /// `seccomp.mode`
    #[inline(always)]
    pub fn mode(&self) -> i32 {
        self.task.0.read(global!(SECCOMP_OFFSETS, mode))
    }

    /// The system call's number.
    #[inline(always)]
    pub fn nr(&self) -> i32 {
        self.regs.read::<u64>(global!(SECCOMP_OFFSETS, nr)) as i32
    }

    /// What the system call returns.
    #[inline(always)]
    pub fn result(&self) -> i64 {
        self.regs.read(global!(SECCOMP_OFFSETS, result))
    }

    /// Whether the call is of the 32-bit ABI.
    #[inline(always)]
    pub fn is_compat(&self) -> bool {
        self.has_bit(global!(SECCOMP_OFFSETS, compat), global!(SECCOMP_OFFSETS, compat_mask))
    }

    /// Whether a tracer makes its calls (`PTRACE_SYSEMU`).
    #[inline(always)]
    pub fn is_emulated(&self) -> bool {
        self.has_bit(global!(SECCOMP_OFFSETS, emulated), global!(SECCOMP_OFFSETS, emulated_mask))
    }

    #[inline(always)]
    fn has_bit(&self, word: u32, mask: u32) -> bool {
        word != MISSING && self.task.0.read::<u32>(word) & mask != 0
    }

    /// Whether it has a tracer.
    #[inline(always)]
    pub fn is_traced(&self) -> bool {
        self.task.0.read::<u32>(global!(SECCOMP_OFFSETS, ptrace)) != 0
    }

    /// Whether a signal waits for this thread.
    #[inline(always)]
    pub fn is_pending(&self, signal: u32) -> bool {
        self.task.0.read::<u64>(global!(SECCOMP_OFFSETS, pending)) & 1 << (signal - 1) != 0
    }

    /// Whether a supervisor listens to one of its filters.
    #[inline(always)]
    pub fn has_listener(&self) -> bool {
        let mut filter = self.task.0.follow(global!(SECCOMP_OFFSETS, filter));
        for _ in 0..MAX_FILTERS {
            if filter.is_null() {
                return false;
            }
            if !filter.follow(global!(SECCOMP_OFFSETS, filter_notif)).is_null() {
                return true;
            }
            filter = filter.follow(global!(SECCOMP_OFFSETS, filter_prev));
        }
        !filter.is_null()
    }

    /// The arguments of the call.
    #[inline(always)]
    pub fn args(&self, is_compat: bool) -> [u64; 6] {
        let regs = self.regs;
        if is_compat {
            let half = |offset| regs.read::<u32>(offset) as u64;
            return [
                half(global!(SECCOMP_OFFSETS, compat_arg0)),
                half(global!(SECCOMP_OFFSETS, compat_arg1)),
                half(global!(SECCOMP_OFFSETS, compat_arg2)),
                half(global!(SECCOMP_OFFSETS, compat_arg3)),
                half(global!(SECCOMP_OFFSETS, compat_arg4)),
                half(global!(SECCOMP_OFFSETS, compat_arg5)),
            ];
        }
        [
            regs.read(global!(SECCOMP_OFFSETS, arg0)),
            regs.read(global!(SECCOMP_OFFSETS, arg1)),
            regs.read(global!(SECCOMP_OFFSETS, arg2)),
            regs.read(global!(SECCOMP_OFFSETS, arg3)),
            regs.read(global!(SECCOMP_OFFSETS, arg4)),
            regs.read(global!(SECCOMP_OFFSETS, arg5)),
        ]
    }
}
