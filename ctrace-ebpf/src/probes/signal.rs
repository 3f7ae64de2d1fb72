//! Signals that end processes, or ask containers to end.
//!
//! `signal_generate` fires in the sender, once the kernel has decided what the signal does, with the
//! victim's `siglock` held: the victim cannot end before the record is written.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/signal.c#L1053>

use aya_ebpf::{
    helpers::generated::bpf_get_current_task,
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use ctrace_common::{Kind, event::signal::Signal, offsets::SignalOffsets};
use zerocopy::IntoBytes;

use super::process::SIGNAL_GROUP_EXIT;
use crate::{
    emit, filter,
    kernel::{Address, Global, global},
    task::{TASK_OFFSETS, Task},
};

#[unsafe(no_mangle)]
static SIGNAL_OFFSETS: Global<SignalOffsets> = Global::new(SignalOffsets::UNKNOWN);

#[map]
static SIGNAL_RECORD: PerCpuArray<Signal> = PerCpuArray::with_max_entries(1, 0);

/// The special pointers of `include/linux/signal.h`.
const SEND_SIG_NOINFO: u64 = 0;
const SEND_SIG_PRIV: u64 = 1;

/// `include/trace/events/signal.h`. The one who takes it learns nothing of its sender with the second.
const TRACE_SIGNAL_DELIVERED: u32 = 0;
const TRACE_SIGNAL_LOSE_INFO: u32 = 4;

/// `include/uapi/asm-generic/siginfo.h`
const SI_USER: i32 = 0;
const SI_TIMER: i32 = -2;
const SI_ASYNCIO: i32 = -4;
const SI_SIGIO: i32 = -5;
const SI_KERNEL: i32 = 0x80;

/// `include/linux/sched.h`
const PF_EXITING: u32 = 4;

const SIGTRAP: u32 = 5;
const SIGKILL: u32 = 9;
const SIGCHLD: u32 = 17;
const SIGSYS: u32 = 31;

/// A bit for each of these signals: signal(7) says what they do by default.
const fn set(numbers: &[u32]) -> u64 {
    let mut set = 0;
    let mut index = 0;
    while index < numbers.len() {
        set |= 1 << (numbers[index] - 1);
        index += 1;
    }
    set
}

/// CHLD, CONT, URG and WINCH do nothing, STOP, TSTP, TTIN and TTOU stop.
const HARMLESS: u64 = set(&[17, 18, 23, 28, 19, 20, 21, 22]);
/// QUIT, ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ and SYS end a process with a core dump.
const DUMPING: u64 = set(&[3, 4, 5, 6, 7, 8, 11, 24, 25, 31]);
/// ILL, TRAP, BUS, FPE and SEGV have the address of the fault.
const FAULTS: u64 = set(&[4, 5, 7, 8, 11]);

/// `signal_generate(sig, info, task, group, result)`
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    let number = ctx.arg::<u32>(0);
    let info = ctx.arg::<u64>(1);
    let victim = Task(Address(ctx.arg::<u64>(2)));
    let is_group = ctx.arg::<u32>(3) != 0;
    let result = ctx.arg::<u32>(4);
    let is_all = global!(SIGNAL_OFFSETS, all) == 1;
    let is_delivered = result == TRACE_SIGNAL_DELIVERED || result == TRACE_SIGNAL_LOSE_INFO;
    // Each end of a process gives its parent one.
    if !is_all && (!is_delivered || number == SIGCHLD) {
        return 0;
    }
    // SAFETY: the helper returns the running task.
    let running = Task(Address(unsafe { bpf_get_current_task() }));
    let (code, origin) = origin(number, info, running, victim);
    let mut flags = origin;
    if is_delivered {
        flags |= ending(victim, number, is_group);
    }
    let ends = flags & (Signal::FATAL | Signal::MAYBE_FATAL) != 0;
    // What a container's first process handles may be what made it end.
    let may_ask = flags & Signal::HAS_SENDER != 0 && victim.is_first_in_nested_pid_ns();
    if !is_all && !ends && !may_ask {
        return 0;
    }
    let Some(record) = SIGNAL_RECORD.get_ptr_mut(0) else {
        emit::lost(Kind::Signal);
        return 0;
    };
    // SAFETY: the record belongs to this program on this CPU until it returns: interrupts are off
    // while the victim's lock is held.
    let record = unsafe { &mut *record };
    victim.identify_process(&mut record.victim);
    running.identify_process(&mut record.running);
    let is_asked = may_ask && record.victim.pid_ns != record.running.pid_ns;
    if !is_all && !ends && !is_asked {
        return 0;
    }
    let may_want_sender = flags & Signal::HAS_SENDER != 0 && filter::may_want(&record.running);
    if !filter::may_want(&record.victim) && !may_want_sender {
        return 0;
    }
    if is_group {
        flags |= Signal::GROUP;
        record.victim.tid = record.victim.tgid;
    }
    record.header = emit::header(Kind::Signal, size_of::<Signal>());
    record.number = number;
    record.code = code;
    record.result = result;
    record.flags = flags;
    record.reserved = 0;
    record.address = 0;
    record.syscall = 0;
    let has_info = info != SEND_SIG_NOINFO && info != SEND_SIG_PRIV;
    if has_info && code > 0 && code != SI_KERNEL {
        if FAULTS & bit(number) != 0 {
            record.address = Address(info).read(global!(SIGNAL_OFFSETS, info_address));
        }
        if number == SIGSYS {
            record.syscall = Address(info).read(global!(SIGNAL_OFFSETS, info_syscall));
        }
    }
    // Of all signals there are many: they must not keep OOM kills out of the ring.
    if ends || is_asked {
        emit::send(Kind::Signal, record.as_bytes());
    } else {
        emit::send_if_room(Kind::Signal, record.as_bytes());
    }
    0
}

#[inline(always)]
fn bit(number: u32) -> u64 {
    1 << (number.wrapping_sub(1) & 63)
}

/// The code that the victim will see, and the bits that tell who sent the signal. `kill` and its like
/// send as the running process; with any other code the running task is whoever was interrupted.
#[inline(always)]
fn origin(number: u32, info: u64, running: Task, victim: Task) -> (i32, u32) {
    let is_leaving = running.flags() & PF_EXITING != 0;
    let leaving = is_leaving as u32 * Signal::RUNNING_EXITS;
    let is_own = running.tgid() == victim.tgid();
    match info {
        // On a process's own account: SIGPIPE, SIGXFSZ. On another's: `cgroup.kill`, a parent's
        // death.
        SEND_SIG_NOINFO if is_own => (SI_USER, Signal::NO_INFO | leaving),
        SEND_SIG_NOINFO => (SI_USER, Signal::NO_INFO | Signal::HAS_SENDER | leaving),
        SEND_SIG_PRIV => (SI_KERNEL, Signal::PRIVILEGED | leaving),
        _ => {
            let code: i32 = Address(info).read(global!(SIGNAL_OFFSETS, info_code));
            // A process may send any code below zero: rt_sigqueueinfo(2). The kernel's own are of
            // timers and of I/O, and of those none is SIGKILL.
            let is_own = matches!(code, SI_TIMER | SI_ASYNCIO | SI_SIGIO) && number != SIGKILL;
            let is_sent = code == SI_USER || (code < 0 && !is_own);
            (code, (is_sent as u32 * Signal::HAS_SENDER) | leaving)
        }
    }
}

/// Whether the process ends of it: [`Signal::FATAL`], [`Signal::MAYBE_FATAL`] or 0.
#[inline(always)]
fn ending(victim: Task, number: u32, is_group: bool) -> u32 {
    let signal = victim.signal();
    // Nobody is left that it could end.
    if HARMLESS & bit(number) != 0 || signal.read::<u32>(global!(TASK_OFFSETS, signal_live)) == 0 {
        return 0;
    }
    // `complete_signal` has begun the end already, but where a core is dumped or a tracer asked.
    let flags: u32 = signal.read(global!(TASK_OFFSETS, signal_flags));
    let exit_code: u32 = signal.read(global!(TASK_OFFSETS, signal_group_exit_code));
    if number == SIGKILL || (flags & SIGNAL_GROUP_EXIT != 0 && exit_code == number) {
        return Signal::FATAL;
    }
    let ptrace: u32 = victim.0.read(global!(SIGNAL_OFFSETS, task_ptrace));
    if DUMPING & bit(number) == 0 && ptrace == 0 {
        return 0;
    }
    let actions = victim
        .0
        .follow(global!(SIGNAL_OFFSETS, task_sighand))
        .member(global!(SIGNAL_OFFSETS, sighand_action));
    let index = number.wrapping_sub(1) as u64;
    let action = Address(actions.0 + index * global!(SIGNAL_OFFSETS, sigaction_size) as u64);
    // SIG_DFL is 0.
    if action.read::<u64>(global!(SIGNAL_OFFSETS, sigaction_handler)) != 0 {
        return 0;
    }
    let blocked: u64 = victim.0.read(global!(SIGNAL_OFFSETS, task_blocked));
    let threads: u32 = signal.read(global!(SIGNAL_OFFSETS, signal_nr_threads));
    if ptrace != 0 {
        // The tracer may keep it from the process; a breakpoint is nothing else.
        (number != SIGTRAP) as u32 * Signal::MAYBE_FATAL
    } else if blocked & bit(number) == 0 {
        Signal::FATAL
    } else if is_group && threads > 1 {
        Signal::MAYBE_FATAL
    } else {
        0
    }
}
