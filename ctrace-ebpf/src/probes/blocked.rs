//! Tasks in uninterruptible sleep, found by going through all tasks: nothing runs while they go to
//! sleep or wake up.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_get_task_stack, bpf_seq_write},
    macros::map,
    maps::PerCpuArray,
};
use ctrace_common::{
    TaskIdentity,
    event::blocked::{BlockedTask, STACK_DEPTH},
    offsets::MISSING,
};
use zerocopy::FromZeros;

use super::runq::SCHED_OFFSETS;
use crate::{
    filter,
    kernel::{Address, Typed, global},
    task::{TASK_OFFSETS, Task},
};

/// `TASK_UNINTERRUPTIBLE` of `include/linux/sched.h`
const UNINTERRUPTIBLE: u32 = 2;
/// `TASK_NOLOAD`: idle threads of the kernel.
const NOLOAD: u32 = 0x400;
/// `PF_FROZEN`: in the freezer; its own state from 6.1 on.
const FROZEN: u32 = 0x1_0000;

/// `struct bpf_iter__task`
#[repr(C)]
struct IterTask {
    meta: *const IterMeta,
    task: *const u8,
}

/// `struct bpf_iter_meta`
#[repr(C)]
struct IterMeta {
    seq: *mut c_void,
}

#[map]
static BLOCKED_TASK: PerCpuArray<BlockedTask> = PerCpuArray::with_max_entries(1, 0);

/// Writes those that sleep uninterruptibly, with where they sleep.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn blocked_tasks(ctx: *const c_void) -> i32 {
    let ctx = ctx.cast::<IterTask>();
    // SAFETY: the kernel passes such a struct.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    // The end of the list.
    if task.is_null() {
        return 0;
    }
    let typed = Typed::new(task);
    let state: u32 = typed.read(global!(SCHED_OFFSETS, task_state));
    if state & UNINTERRUPTIBLE == 0 || state & NOLOAD != 0 {
        return 0;
    }
    // It has set its state, but runs on; or it was preempted before it slept. The members are an int
    // in some kernels and a byte in others: 0 to 2.
    if typed.read::<u8>(global!(SCHED_OFFSETS, task_on_cpu)) != 0 || is_waiting_for_cpu(typed) {
        return 0;
    }
    if typed.read::<u32>(global!(TASK_OFFSETS, flags)) & FROZEN != 0 {
        return 0;
    }
    let Some(record) = BLOCKED_TASK.get_ptr_mut(0) else { return 0 };
    // SAFETY: one reader at a time goes through the tasks.
    let record = unsafe { &mut *record };
    record.task = TaskIdentity::new_zeroed();
    Task(Address(typed.address())).identify(&mut record.task);
    if !filter::may_want(&record.task) {
        return 0;
    }
    record.state = state;
    record.cpu = typed.read(global!(SCHED_OFFSETS, task_cpu));
    record.arrived_ns = typed.read(global!(SCHED_OFFSETS, task_last_arrival));
    record.left_ns = left(typed);
    record.reserved = 0;
    record.switches = typed
        .read::<u64>(global!(SCHED_OFFSETS, task_nvcsw))
        .wrapping_add(typed.read(global!(SCHED_OFFSETS, task_nivcsw)));
    record.clock_ns = clock();
    // SAFETY: the helper writes at most the size of the stack.
    let length = unsafe {
        bpf_get_task_stack(
            task.cast_mut().cast(),
            record.stack.as_mut_ptr().cast(),
            (STACK_DEPTH * size_of::<u64>()) as u32,
            0,
        )
    };
    record.stack_len = length.max(0) as u32;
    // SAFETY: the record is whole; the kernel keeps what it is written to.
    unsafe {
        bpf_seq_write((*meta).seq.cast(), (&raw const *record).cast(), size_of_val(record) as u32)
    };
    0
}

/// Whether it is on a run queue although it does not run. From 6.12 on a sleeping task may stay on it
/// for a while.
#[inline(always)]
fn is_waiting_for_cpu(task: Typed) -> bool {
    let queued = task.read::<u8>(global!(SCHED_OFFSETS, task_on_rq)) != 0;
    let delayed = global!(SCHED_OFFSETS, task_sched_delayed);
    let sleeps = delayed != MISSING && task.read::<u8>(delayed) != 0;
    queued && !sleeps
}

/// When a task that sleeps left its CPU, by the run queue's clock; 0 where it was moved to another one
/// since.
///
/// All schedulers count a task's time up to there, by the clock of tasks, which stands still while
/// interrupts or the hypervisor have the CPU: what they took since counts as if it were before.
#[inline(always)]
fn left(task: Typed) -> u64 {
    let counted: u64 = task.read(global!(SCHED_OFFSETS, task_exec_start));
    if counted == 0 {
        return 0;
    }
    let rq =
        task.follow(global!(SCHED_OFFSETS, task_cfs_rq)).follow(global!(SCHED_OFFSETS, cfs_rq_rq));
    // The kernel writes them in the other order: in between, the task seems to have left later.
    let of_tasks: u64 = rq.read(global!(SCHED_OFFSETS, rq_clock_task));
    let clock: u64 = rq.read(global!(SCHED_OFFSETS, rq_clock));
    counted.wrapping_add(clock.wrapping_sub(of_tasks))
}

/// The run queue's clock on this CPU, as of its last tick or switch, nanoseconds.
#[inline(always)]
fn clock() -> u64 {
    // SAFETY: the helper has no preconditions.
    let current = Address(unsafe { bpf_get_current_task() });
    let cfs_rq = current.follow(global!(SCHED_OFFSETS, task_cfs_rq));
    cfs_rq.follow(global!(SCHED_OFFSETS, cfs_rq_rq)).read(global!(SCHED_OFFSETS, rq_clock))
}
