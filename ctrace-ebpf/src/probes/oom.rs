//! OOM kills.
//!
//! `mark_victim` fires once for every victim, in the task whose allocation called the OOM killer.
//! Kernels differ in what it carries: the victim's `task_struct`, or its pid alone. With the pid
//! alone the task comes from the SIGKILL that `__oom_kill_process` sends it a moment before, in the
//! same thread: <https://github.com/torvalds/linux/blob/v6.6/mm/oom_kill.c#L947-L953>.
//!
//! Where the kernel allows it, a hook on `out_of_memory` remembers its `oom_control`, which names
//! the memory cgroup and the constraint.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated},
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, PerCpuArray},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use ctrace_common::{
    Kind,
    event::{
        cgroup::MAX_DEPTH,
        oom::{MEMORY_EVENTS, MemcgLevel, OomKill, STACK_DEPTH},
    },
    offsets::{MISSING, OomOffsets},
};

use crate::{
    cgroup::Cgroup,
    emit,
    kernel::{Address, Global, global},
    task::{TASK_OFFSETS, Task},
};

#[unsafe(no_mangle)]
static OOM_OFFSETS: Global<OomOffsets> = Global::new(OomOffsets::UNKNOWN);

const SIGKILL: u32 = 9;
/// `SEND_SIG_PRIV`: the sender is the kernel itself.
const SEND_SIG_PRIV: u64 = 1;

/// The `oom_control` of the thread that is inside `out_of_memory`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Running {
    /// Its pid and tgid; 0: nobody is inside.
    thread: u64,
    control: u64,
}

/// One slot is enough: the kernel's `oom_lock` mutex lets one thread in at a time.
#[map]
static OOM_RUNNING: Array<Running> = Array::with_max_entries(1, 0);

/// The last task that the kernel itself sent SIGKILL on this CPU, and the thread that did it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Killed {
    thread: u64,
    task: u64,
}

#[map]
static OOM_KILLED: PerCpuArray<Killed> = PerCpuArray::with_max_entries(1, 0);

#[map]
static OOM_RECORD: PerCpuArray<OomKill> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "out_of_memory")]
pub fn out_of_memory(ctx: FEntryContext) -> u32 {
    enter(ctx.arg::<*const u8>(0) as u64)
}

#[fexit(function = "out_of_memory")]
pub fn out_of_memory_exit(_ctx: FExitContext) -> u32 {
    leave()
}

#[kprobe(function = "out_of_memory")]
pub fn out_of_memory_kprobe(ctx: ProbeContext) -> u32 {
    enter(ctx.arg::<u64>(0).unwrap_or(0))
}

#[kretprobe(function = "out_of_memory")]
pub fn out_of_memory_kretprobe(_ctx: RetProbeContext) -> u32 {
    leave()
}

#[inline(always)]
fn enter(control: u64) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let _ = OOM_RUNNING.set(0, Running { thread, control }, 0);
    0
}

#[inline(always)]
fn leave() -> u32 {
    let _ = OOM_RUNNING.set(0, Running { thread: 0, control: 0 }, 0);
    0
}

/// The `oom_control` that the current thread works on, where the hook saw it enter.
#[inline(always)]
fn control() -> Address {
    match OOM_RUNNING.get(0) {
        Some(running) if running.thread == bpf_get_current_pid_tgid() => Address(running.control),
        _ => Address::NULL,
    }
}

/// `signal_generate(sig, info, task, group, result)`: only attached where `mark_victim` carries no
/// task.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn oom_signal_generate(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(0) == SIGKILL && ctx.arg::<u64>(1) == SEND_SIG_PRIV {
        let killed = Killed { thread: bpf_get_current_pid_tgid(), task: ctx.arg::<u64>(2) };
        let _ = OOM_KILLED.set(0, killed, 0);
    }
    0
}

#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper returns the running task.
    let trigger = Task(Address(unsafe { generated::bpf_get_current_task() }));
    let (victim, tid) = if global!(OOM_OFFSETS, mark_victim_task) == 1 {
        let victim = Task(Address(ctx.arg::<u64>(0)));
        (victim, victim.tid())
    } else {
        let tid = ctx.arg::<u32>(0);
        (victim_of_pid(trigger, tid), tid)
    };
    match OOM_RECORD.get_ptr_mut(0) {
        // SAFETY: the record belongs to this program on this CPU until it returns.
        Some(record) => report(&ctx, trigger, victim, tid, unsafe { &mut *record }),
        None => emit::lost(Kind::OomKill),
    }
    0
}

/// The task of a victim that is known by pid: the trigger itself, the task it just killed, or the
/// one that `oom_control` names. NULL where it is none of them.
#[inline(always)]
fn victim_of_pid(trigger: Task, tid: u32) -> Task {
    if trigger.tid() == tid {
        return trigger;
    }
    if let Some(killed) = OOM_KILLED.get(0)
        && killed.thread == bpf_get_current_pid_tgid()
    {
        let task = Task(Address(killed.task));
        if task.tid() == tid {
            return task;
        }
    }
    let chosen = Task(control().follow(global!(OOM_OFFSETS, control_chosen)));
    if !chosen.0.is_null() && chosen.tid() == tid { chosen } else { Task(Address::NULL) }
}

#[inline(always)]
fn report(ctx: &RawTracePointContext, trigger: Task, victim: Task, tid: u32, record: &mut OomKill) {
    clear(record);
    record.header = emit::header(Kind::OomKill, size_of::<OomKill>());
    let trigger_cgroups = trigger.cgroups();
    trigger_cgroups.emit_paths();
    trigger.identify(&mut record.trigger);
    read_memory_policy(trigger, record);
    read_control(record);

    let mut cgroups = trigger_cgroups;
    record.flags |= OomKill::LEVELS_OF_TRIGGER;
    record.victim.tid = tid;
    if !victim.0.is_null() {
        cgroups = victim.cgroups();
        record.flags ^= OomKill::LEVELS_OF_TRIGGER | OomKill::HAS_VICTIM;
        victim.identify(&mut record.victim);
        record.oom_score_adj =
            victim.signal().read::<i16>(global!(TASK_OFFSETS, signal_oom_score_adj)) as i32;
        read_memory(victim, record);
        if !cgroups.same_as(&trigger_cgroups) {
            cgroups.emit_paths();
        }
    }
    record.memory_hierarchy = Cgroup::of_css(cgroups.memory_css).hierarchy();
    read_levels(memcg_of(cgroups.memory_css).0);
    read_trigger_levels(memcg_of(trigger_cgroups.memory_css).0);
    read_stack(ctx, record);

    // SAFETY: the record is plain data without padding.
    let bytes = unsafe {
        core::slice::from_raw_parts((&raw const *record).cast::<u8>(), size_of::<OomKill>())
    };
    emit::send(Kind::OomKill, bytes);
}

/// Zeroes the record: what is not read must not be what an earlier event left.
#[inline(always)]
fn clear(record: &mut OomKill) {
    let words = (&raw mut *record).cast::<u64>();
    for word in 0..size_of::<OomKill>() / size_of::<u64>() {
        // SAFETY: inside the record, whose size is a multiple of 8. Volatile, so that it stays a
        // loop that the verifier takes.
        unsafe { words.add(word).write_volatile(0) };
    }
}

#[inline(always)]
fn read_memory_policy(trigger: Task, record: &mut OomKill) {
    if global!(TASK_OFFSETS, mems_allowed) != MISSING {
        record.mems_allowed = trigger.0.read(global!(TASK_OFFSETS, mems_allowed));
        record.flags |= OomKill::HAS_MEMS_ALLOWED;
    }
    let policy = trigger.0.follow(global!(TASK_OFFSETS, mempolicy));
    if !policy.is_null() {
        record.mempolicy_mode = policy.read::<u16>(global!(TASK_OFFSETS, mempolicy_mode)) as u32;
        record.mempolicy_nodes = policy.read(global!(TASK_OFFSETS, mempolicy_nodes));
        record.flags |= OomKill::HAS_MEMPOLICY;
    }
}

/// Reads `oom_control`, where the hook has it.
#[inline(always)]
fn read_control(record: &mut OomKill) {
    let control = control();
    if control.is_null() {
        return;
    }
    record.constraint = control.read(global!(OOM_OFFSETS, control_constraint));
    record.gfp_mask = control.read(global!(OOM_OFFSETS, control_gfp_mask));
    record.order = control.read(global!(OOM_OFFSETS, control_order));
    record.oom_memcg = memcg_id(control.follow(global!(OOM_OFFSETS, control_memcg)));
    record.flags |= OomKill::HAS_CONTROL;
}

#[inline(always)]
fn read_memory(victim: Task, record: &mut OomKill) {
    let mm = victim.0.follow(global!(TASK_OFFSETS, mm));
    if mm.is_null() || global!(OOM_OFFSETS, mm_rss) == MISSING {
        return;
    }
    record.flags |= OomKill::HAS_MEMORY;
    record.memory.total_vm_pages = mm.read(global!(OOM_OFFSETS, mm_total_vm));
    // The order of `MM_FILEPAGES`, `MM_ANONPAGES`, `MM_SWAPENTS`, `MM_SHMEMPAGES` has been the same
    // since 4.5; the collector refuses a kernel where BTF says otherwise.
    record.memory.file_rss_pages = rss(mm, 0);
    record.memory.anon_rss_pages = rss(mm, 1);
    record.memory.swap_pages = rss(mm, 2);
    record.memory.shmem_rss_pages = rss(mm, 3);
    record.memory.pgtables_bytes = mm.read(global!(OOM_OFFSETS, mm_pgtables));
}

/// A resident-set counter, as the kernel's own report reads it.
#[inline(always)]
fn rss(mm: Address, counter: u32) -> i64 {
    mm.read(global!(OOM_OFFSETS, mm_rss) + counter * global!(OOM_OFFSETS, mm_rss_stride))
}

/// The `mem_cgroup` around a `cgroup_subsys_state`.
#[inline(always)]
fn memcg_of(css: Address) -> Address {
    let offset = global!(OOM_OFFSETS, memcg_css);
    if css.is_null() || offset == MISSING { Address::NULL } else { Address(css.0 - offset as u64) }
}

/// The `mem_cgroup` whose limit counts next: the one around the parent of the `memory` counter.
/// NULL above the outermost.
#[inline(always)]
fn parent(memcg: Address) -> Address {
    let memory = global!(OOM_OFFSETS, memcg_memory);
    let counter = memcg.member(memory).follow(global!(OOM_OFFSETS, counter_parent));
    if counter.is_null() { Address::NULL } else { Address(counter.0 - memory as u64) }
}

#[inline(always)]
fn memcg_id(memcg: Address) -> u64 {
    Cgroup::of_css(memcg.member(global!(OOM_OFFSETS, memcg_css))).id()
}

/// Fills the record's levels, from `memcg` outwards. A global function of a scalar: the verifier
/// checks it once, apart from its caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_levels(memcg: u64) -> u64 {
    let mut memcg = Address(memcg);
    let Some(record) = OOM_RECORD.get_ptr_mut(0) else { return 0 };
    // SAFETY: the record belongs to this program on this CPU until it returns.
    let record = unsafe { &mut *record };
    let mut count = 0;
    for index in 0..MAX_DEPTH {
        if memcg.is_null() {
            break;
        }
        let level = &mut record.levels[index];
        let memory = memcg.member(global!(OOM_OFFSETS, memcg_memory));
        let swap = memcg.member(global!(OOM_OFFSETS, memcg_swap));
        level.cgroup = memcg_id(memcg);
        level.usage_pages = memory.read(global!(OOM_OFFSETS, counter_usage));
        level.max_pages = memory.read(global!(OOM_OFFSETS, counter_max));
        level.failcnt = memory.read(global!(OOM_OFFSETS, counter_failcnt));
        level.swap_usage_pages = swap.read(global!(OOM_OFFSETS, counter_usage));
        level.swap_max_pages = swap.read(global!(OOM_OFFSETS, counter_max));
        level.under_oom = memcg.read(global!(OOM_OFFSETS, memcg_under_oom));
        // Both are `bool`: multiplied, not branched on, for the verifier's sake.
        let lock: u8 = memcg.read(global!(OOM_OFFSETS, memcg_oom_lock));
        let group: u8 = memcg.read(global!(OOM_OFFSETS, memcg_oom_group));
        level.flags = (lock as u32 * MemcgLevel::OOM_LOCK) | (group as u32 * MemcgLevel::OOM_GROUP);
        let events = memcg.member(global!(OOM_OFFSETS, memcg_events));
        for event in 0..MEMORY_EVENTS {
            if (event as u32) < global!(OOM_OFFSETS, memcg_events_len) {
                record.events[index][event] = events.read(event as u32 * 8);
            }
        }
        count += 1;
        memcg = parent(memcg);
    }
    record.level_count = count;
    if !memcg.is_null() {
        record.flags |= OomKill::LEVELS_TRUNCATED;
    }
    0
}

/// Fills the ids of the trigger's levels, from `memcg` outwards.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_trigger_levels(memcg: u64) -> u64 {
    let mut memcg = Address(memcg);
    let Some(record) = OOM_RECORD.get_ptr_mut(0) else { return 0 };
    // SAFETY: the record belongs to this program on this CPU until it returns.
    let record = unsafe { &mut *record };
    for index in 0..MAX_DEPTH {
        if memcg.is_null() {
            break;
        }
        record.trigger_levels[index] = memcg_id(memcg);
        memcg = parent(memcg);
    }
    0
}

#[inline(always)]
fn read_stack(ctx: &RawTracePointContext, record: &mut OomKill) {
    let stack = &mut record.stack;
    // SAFETY: the helper writes at most the array's size.
    let bytes = unsafe {
        generated::bpf_get_stack(
            ctx.as_ptr(),
            stack.as_mut_ptr().cast(),
            (STACK_DEPTH * size_of::<u64>()) as u32,
            0,
        )
    };
    if bytes > 0 {
        record.stack_len = bytes as u32 / size_of::<u64>() as u32;
    }
}
