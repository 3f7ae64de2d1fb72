//! How long tasks wait for a CPU, by one hook.
//!
//! No hook on wake-ups: at `sched_switch` the kernel still has in `sched_info` since when the task
//! that is switched in has been waiting. It adds that wait to the task's `run_delay` a moment later, by
//! the same clock: <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/stats.h#L239-L329>.
//! A task that is moved to another CPU while it waits has the time so far added to `run_delay` at
//! once, so that the whole wait is what `run_delay` has grown by since the task last got a CPU. So
//! the reported delays of a task add up to what `/proc/PID/schedstat` says; but for the first, if the
//! task is moved in it: nobody knows what its `run_delay` was before. Nor where the kernel leaves
//! switches out: a hardened 6.18 calls neither this program nor perf at those from the idle task of
//! its second CPU. The count of the task's runs shows them: they are counted, and no part of a delay.
//!
//! The frequent path reads typed pointers, which the kernel turns into plain loads.

use aya_ebpf::{
    helpers::generated::bpf_get_smp_processor_id,
    macros::{btf_tracepoint, map},
    maps::{Array, PerCpuArray},
    programs::BtfTracePointContext,
};
use ctrace_common::{
    Kind, Place, TaskIdentity,
    event::runq::{RunqDelay, RunqSettings},
    offsets::{MISSING, SchedOffsets},
    totals::{Measure, Untotalled},
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    cgroup::CGROUP_OFFSETS,
    emit, filter,
    kernel::{Address, Global, Typed, global},
    task::{TASK_OFFSETS, Task},
    totals,
};

#[unsafe(no_mangle)]
pub static SCHED_OFFSETS: Global<SchedOffsets> = Global::new(SchedOffsets::UNKNOWN);

#[unsafe(no_mangle)]
static RUNQ_SETTINGS: Global<RunqSettings> =
    Global::new(RunqSettings { slower_ns: u64::MAX, hierarchy_v1: 0, reserved: 0 });

/// How things stood when a task last got a CPU. Each number has in its high bits that it is set, and
/// the bits of the pid that the place in [`ARRIVALS`] does not tell: another task may have the same
/// place, and write it at the same time.
#[repr(C)]
struct Arrival {
    /// Its `run_delay`.
    waited: u64,
    /// Its `pcount`: how often it had got one before.
    runs: u64,
    /// Its `nvcsw`: how often it has gone to sleep.
    slept: u64,
    /// How long its cgroup's quota was used up on `cfs_rq`, in a unit that depends on the kernel.
    throttled: u64,
    /// Its cgroup's queue on its CPU.
    cfs_rq: u64,
}

/// Places of [`ARRIVALS`].
const PLACES: u32 = 1 << 16;

/// By the low bits of the pid. Of two tasks with the same place each forgets what it knew of the
/// other: then a delay begins when the task came to its last CPU.
#[map]
static ARRIVALS: Array<Arrival> = Array::with_max_entries(PLACES, 0);

/// Bits of a number in [`Arrival`].
const NUMBER_BITS: u32 = 56;
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;
/// Of [`Arrival::waited`]: the task was moved to another CPU while it was asleep.
const MOVED: u64 = 1 << 62;
const SET: u64 = 1 << 63;
/// A mark that no task has.
const UNKNOWN: u64 = 0;

#[map]
static RUNQ_RECORD: PerCpuArray<RunqDelay> = PerCpuArray::with_max_entries(1, 0);

/// What a task's numbers in [`Arrival`] have in their high bits.
#[inline(always)]
fn mark_of(pid: u32) -> u64 {
    SET | ((pid / PLACES) as u64) << NUMBER_BITS
}

/// A number as it is kept for the task with this mark.
#[inline(always)]
fn marked(mark: u64, number: u64) -> u64 {
    mark | number & NUMBER
}

/// By how much a number has grown since it was kept; none where it was not, or for another task.
#[inline(always)]
fn grown(mark: u64, number: u64, kept: u64) -> Option<u64> {
    (kept & !NUMBER == mark).then(|| number.wrapping_sub(kept) & NUMBER)
}

/// `sched_switch(preempt, prev, next)`, from 5.18 on with `prev_state` as a fourth.
#[btf_tracepoint(function = "sched_switch")]
pub fn runq_switch(ctx: BtfTracePointContext) -> i32 {
    let next = Typed::new(ctx.arg::<*const u8>(2));
    let queued: u64 = next.read(global!(SCHED_OFFSETS, task_last_queued));
    // The idle task never waits.
    if queued == 0 {
        return 0;
    }
    let cfs_rq = next.follow(global!(SCHED_OFFSETS, task_cfs_rq));
    let rq = cfs_rq.follow(global!(SCHED_OFFSETS, cfs_rq_rq));
    let clock: u64 = rq.read(global!(SCHED_OFFSETS, rq_clock));
    // How long on this CPU; without the part before it moved here.
    let mut delay = clock.saturating_sub(queued);
    let waited = next.read::<u64>(global!(SCHED_OFFSETS, task_run_delay)).wrapping_add(delay);
    let runs: u64 = next.read(global!(SCHED_OFFSETS, task_pcount));
    let slept: u64 = next.read(global!(SCHED_OFFSETS, task_nvcsw));
    let throttled: u64 = if global!(SCHED_OFFSETS, cfs_rq_throttled) == MISSING {
        0
    } else {
        cfs_rq.read(global!(SCHED_OFFSETS, cfs_rq_throttled))
    };
    let pid: u32 = next.read(global!(TASK_OFFSETS, pid));
    let mark = mark_of(pid);
    let Some(arrival) = ARRIVALS.get_ptr_mut(pid & (PLACES - 1)) else { return 0 };
    // SAFETY: the place is whole; what other CPUs write to it at the same time is marked as another
    // task's.
    let before = unsafe { arrival.read() };
    // SAFETY: as above.
    unsafe {
        (*arrival).waited = marked(mark, waited);
        (*arrival).runs = marked(mark, runs);
        (*arrival).slept = marked(mark, slept);
        (*arrival).throttled = marked(mark, throttled);
        (*arrival).cfs_rq = cfs_rq.address();
    }
    if before.waited & !NUMBER == mark | MOVED {
        // Nobody knows since when it really waits.
        return 0;
    }
    let mut kept = mark;
    if runs == 0 {
        // It never ran before: what is kept is another's that had the same pid.
        delay = waited;
    } else if let Some(since) = grown(mark, waited, before.waited)
        && since != delay
    {
        let untold = runs.wrapping_sub(before.runs & NUMBER).saturating_sub(1);
        if untold == 0 {
            delay = since;
        } else {
            // What is kept is of a run before others.
            kept = UNKNOWN;
            totals::lost(Untotalled::Untold, untold);
        }
    }
    let preempted = grown(kept, slept, before.slept).map(|times| times == 0);
    let same_queue = before.cfs_rq == cfs_rq.address();
    let throttled = grown(kept, throttled, before.throttled).filter(|_| same_queue);
    // Else it may have been while the task slept.
    let is_throttled = throttled.is_some_and(|more| more != 0) && preempted == Some(true);
    // What a quota takes is told by `cpu.stat`, and is no wait for a CPU.
    if !is_throttled {
        count(next, delay);
    }
    let slower = global!(RUNQ_SETTINGS, slower_ns);
    if delay < slower || (is_throttled && slower != 0) {
        return 0;
    }
    let mut flags = 0;
    if let Some(preempted) = preempted {
        flags |= RunqDelay::HAS_PREEMPTED | (preempted as u32 * RunqDelay::PREEMPTED);
    }
    if is_throttled {
        flags |= RunqDelay::HAS_THROTTLED | RunqDelay::THROTTLED;
    } else if throttled == Some(0) {
        flags |= RunqDelay::HAS_THROTTLED;
    }
    send(Address(ctx.arg::<*const u8>(1) as u64), Address(next.address()), delay, flags)
}

/// `sched_migrate_task(p, dest_cpu)`, where a task that has gone to sleep may stay on its run queue for
/// a while, from 6.12 on. If it is moved to another CPU in that state the kernel takes it for waiting
/// from then on, and its sleep counts in `run_delay`:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/sched/core.c#L2010-L2030>.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn runq_migrate(ctx: BtfTracePointContext) -> i32 {
    let task = Typed::new(ctx.arg::<*const u8>(0));
    if task.read::<u8>(global!(SCHED_OFFSETS, task_sched_delayed)) == 0 {
        return 0;
    }
    let pid: u32 = task.read(global!(TASK_OFFSETS, pid));
    let Some(arrival) = ARRIVALS.get_ptr_mut(pid & (PLACES - 1)) else { return 0 };
    // SAFETY: as at the switch.
    unsafe { (*arrival).waited = mark_of(pid) | MOVED };
    0
}

/// Adds a delay to those of the task's cgroup.
#[inline(always)]
fn count(task: Typed, delay: u64) {
    let css_set = task.follow(global!(TASK_OFFSETS, cgroups));
    let cgroup = if global!(CGROUP_OFFSETS, css_set_v1) == MISSING {
        css_set.follow(global!(CGROUP_OFFSETS, css_set_dfl))
    } else {
        css_set
            .follow(global!(CGROUP_OFFSETS, css_set_v1))
            .follow(global!(CGROUP_OFFSETS, css_cgroup))
    };
    let kn = cgroup.follow(global!(CGROUP_OFFSETS, cgroup_kn));
    let id: u64 = kn.read(global!(CGROUP_OFFSETS, kn_id));
    let place = Place::new(global!(RUNQ_SETTINGS, hierarchy_v1), id);
    totals::add(place, Measure::RunQueue, 0, delay, 0);
}

#[inline(always)]
fn send(prev: Address, next: Address, delay_ns: u64, flags: u32) -> i32 {
    let Some(record) = RUNQ_RECORD.get_ptr_mut(0) else {
        emit::lost(Kind::RunqDelay);
        return 0;
    };
    // SAFETY: the buffer belongs to this program on this CPU until it returns.
    let record = unsafe { &mut *record };
    record.task = TaskIdentity::new_zeroed();
    Task(next).identify(&mut record.task);
    if !filter::may_want(&record.task) {
        return 0;
    }
    record.before = TaskIdentity::new_zeroed();
    Task(prev).identify(&mut record.before);
    record.header = emit::header(Kind::RunqDelay, size_of::<RunqDelay>());
    record.delay_ns = delay_ns;
    // SAFETY: the helper has no preconditions.
    record.cpu = unsafe { bpf_get_smp_processor_id() };
    record.flags = flags;
    emit::send(Kind::RunqDelay, record.as_bytes());
    0
}
