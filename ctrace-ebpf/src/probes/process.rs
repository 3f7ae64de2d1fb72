//! Processes that run another program, and those that end.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::{map, raw_tracepoint},
    maps::{LruHashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use ctrace_common::{
    Kind, TaskIdentity,
    event::process::{Exec, ExecBuffer, Exit, MAX_ARGS, MAX_FILENAME},
    offsets::ExitOptions,
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{
    emit, filter,
    kernel::{Address, Global, global},
    task::{TASK_OFFSETS, Task},
};

#[unsafe(no_mangle)]
static EXIT_OPTIONS: Global<ExitOptions> = Global::new(ExitOptions::UNKNOWN);

/// `signal_struct.flags`: `include/linux/sched/signal.h`
pub const SIGNAL_GROUP_EXIT: u32 = 4;
/// The bits of a status that name the signal: wait(2).
const STATUS_SIGNAL: u32 = 0x7f;

/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;
/// `include/uapi/asm-generic/errno-base.h`
const EEXIST: i32 = 17;

#[map]
static EXEC_RECORD: PerCpuArray<ExecBuffer> = PerCpuArray::with_max_entries(1, 0);

/// `sched_process_exec(task, old_pid, bprm)`: the new address space is in place.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let task = Task(Address(ctx.arg::<u64>(0)));
    let bprm = Address(ctx.arg::<u64>(2));
    let Some(buffer) = EXEC_RECORD.get_ptr_mut(0) else {
        emit::lost(Kind::Exec);
        return 0;
    };
    // SAFETY: the buffer belongs to this program on this CPU until it returns.
    let ExecBuffer { exec, text } = unsafe { &mut *buffer };
    exec.process = TaskIdentity::new_zeroed();
    task.identify(&mut exec.process);
    if !filter::may_want(&exec.process) {
        return 0;
    }
    exec.old_tid = ctx.arg::<u32>(1);
    let filename = bprm.follow(global!(TASK_OFFSETS, binprm_filename));
    // SAFETY: the helper writes at most MAX_FILENAME bytes.
    let length = unsafe {
        bpf_probe_read_kernel_str(
            text.as_mut_ptr().cast(),
            MAX_FILENAME as u32,
            filename.0 as *const _,
        )
    };
    exec.filename_len = if (0..=MAX_FILENAME as i64).contains(&length) { length as u32 } else { 0 };
    let mm = task.0.follow(global!(TASK_OFFSETS, mm));
    let start: u64 = mm.read(global!(TASK_OFFSETS, mm_arg_start));
    let end: u64 = mm.read(global!(TASK_OFFSETS, mm_arg_end));
    exec.args_total = end.saturating_sub(start).min(u32::MAX as u64) as u32;
    exec.args_len = exec.args_total.min(MAX_ARGS as u32 - 1);
    let used = emit::bounded(&raw const exec.filename_len, MAX_FILENAME);
    let wanted = emit::bounded(&raw const exec.args_len, MAX_ARGS);
    let (Some(used), Some(wanted)) = (used, wanted) else {
        emit::lost(Kind::Exec);
        return 0;
    };
    // SAFETY: MAX_ARGS bytes follow the longest file name.
    let failed = unsafe {
        let place = text.as_mut_ptr().add(used);
        bpf_probe_read_user(place.cast(), wanted as u32, start as *const _)
    };
    if failed != 0 {
        exec.args_len = 0;
    }
    let size = size_of::<Exec>() + used + exec.args_len as usize;
    exec.header = emit::header(Kind::Exec, size);
    emit::send_sized(Kind::Exec, buffer);
    0
}

/// A process that has ended. Its leader's start makes its id unique.
#[repr(C)]
struct Ended {
    start_boottime_ns: u64,
    tgid: u64,
}

/// The processes that ended last; only of use where the tracepoint does not tell the last thread.
#[map]
static ENDED: LruHashMap<Ended, u8> = LruHashMap::with_max_entries(8 << 10, 0);

/// `sched_process_exit(task)`, from 6.16 on `(task, group_dead)`: once for every thread; the last one
/// counts.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the helper returns the running task, which is the one that exits.
    let task = Task(Address(unsafe { bpf_get_current_task() }));
    let signal = task.signal();
    let is_told = global!(TASK_OFFSETS, exit_group_dead) == 1;
    // The count of live threads goes down before the tracepoint, in all kernels. A kernel that does
    // not pass the second argument refuses a program that could read it.
    let is_last = if is_told {
        ctx.arg::<u64>(1) != 0
    } else {
        signal.read::<u32>(global!(TASK_OFFSETS, signal_live)) == 0
    };
    if !is_last {
        return 0;
    }
    let leader = task.0.follow(global!(TASK_OFFSETS, group_leader));
    // As `wait_task_zombie` has it: <https://github.com/torvalds/linux/blob/v6.12/kernel/exit.c#L1159>.
    let of_group = signal.read::<u32>(global!(TASK_OFFSETS, signal_flags)) & SIGNAL_GROUP_EXIT;
    let status: u32 = if of_group != 0 {
        signal.read(global!(TASK_OFFSETS, signal_group_exit_code))
    } else {
        leader.read(global!(TASK_OFFSETS, exit_code))
    };
    if global!(EXIT_OPTIONS, all) != 1
        && status & STATUS_SIGNAL == 0
        && !task.is_first_in_nested_pid_ns()
    {
        return 0;
    }
    let kind = if global!(EXIT_OPTIONS, all) == 1 { Kind::Exit } else { Kind::Death };
    let mut record = Exit {
        header: emit::header(kind, size_of::<Exit>()),
        process: TaskIdentity::new_zeroed(),
        status,
        reserved: 0,
    };
    // The process has its leader's name; the last thread may have one of its own.
    task.identify_process(&mut record.process);
    record.process.tid = record.process.tgid;
    if !filter::may_want(&record.process) {
        return 0;
    }
    if !is_told && !is_first_report(&record.process) {
        return 0;
    }
    // There may be many at once: they must not keep OOM kills out of the ring.
    match kind {
        Kind::Death => emit::send_if_room(kind, record.as_bytes()),
        _ => emit::send(kind, record.as_bytes()),
    }
    0
}

/// Whether no other thread has reported the end of its process. Threads that exit at once all count
/// down before the first of them gets to the tracepoint, and then each finds that none is left.
#[inline(always)]
fn is_first_report(process: &TaskIdentity) -> bool {
    let TaskIdentity { start_boottime_ns, tgid, .. } = *process;
    let ended = Ended { start_boottime_ns, tgid: tgid as u64 };
    // Any other failure must not hide an end.
    ENDED.insert(ended, 0, BPF_NOEXIST) != Err(-EEXIST)
}
