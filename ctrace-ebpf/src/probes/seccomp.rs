//! System calls that a seccomp filter denies or logs.
//!
//! There is no tracepoint for it. A filter that answers with an error leaves these traces: where
//! functions can be hooked, `__secure_computing` returns -1; everywhere, the call fires `sys_exit`
//! and no `sys_enter`, which comes after the filters:
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/entry/common.c#L28-L71>. A trap and most
//! kills are a SIGSYS, the others the end of the thread.

mod current;
mod fold;
mod threads;

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{fentry, fexit, map, raw_tracepoint},
    maps::LruHashMap,
    programs::{FEntryContext, FExitContext, RawTracePointContext},
};
use ctrace_common::{
    event::seccomp::{Action, Ended, Seccomp, Via},
    offsets::SeccompOffsets,
};
use zerocopy::FromZeros;

use crate::{
    kernel::{Address, Global, global},
    task::{TASK_OFFSETS, Task},
};
use current::Current;
use fold::{Denial, report};
use threads::State;

#[unsafe(no_mangle)]
static SECCOMP_OFFSETS: Global<SeccompOffsets> = Global::new(SeccompOffsets::UNKNOWN);

const SIGKILL: u32 = 9;
const SIGSYS: u32 = 31;
/// `kernel_siginfo.si_code`: `include/uapi/asm-generic/siginfo.h`
const SYS_SECCOMP: i32 = 1;
/// `SEND_SIG_NOINFO`, `SEND_SIG_PRIV`: no `kernel_siginfo`.
const LAST_SPECIAL_INFO: u64 = 1;
/// `k_sigaction.sa.sa_flags`, from 5.16 on: the signal was forced and cannot be handled.
/// `include/linux/signal_types.h`
const SA_IMMUTABLE: u64 = 0x0080_0000;

/// `include/uapi/linux/seccomp.h`
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_LOG: u32 = 0x7ffc_0000;

/// `include/uapi/asm-generic/errno.h`
const ENOSYS: i64 = 38;
const MAX_ERRNO: i64 = 4095;
/// `ERESTARTSYS` to `ERESTART_RESTARTBLOCK`: `include/linux/errno.h`
const RESTARTS: core::ops::RangeInclusive<i64> = 512..=516;

/// `sys_enter(regs, id)`: the filters let the call pass.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn seccomp_sys_enter(_ctx: RawTracePointContext) -> i32 {
    threads::set(bpf_get_current_pid_tgid() as u32, State::INSIDE);
    0
}

/// `sys_exit(regs, ret)`: of every call, also of one that never began.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn seccomp_sys_exit(ctx: RawTracePointContext) -> i32 {
    let before = threads::replace(bpf_get_current_pid_tgid() as u32, State::OUTSIDE);
    if before == State::INSIDE {
        return 0;
    }
    unpaired(ctx.arg(0), before as u64)
}

/// A `sys_exit` without its `sys_enter`. A global function of scalars: the verifier checks it once,
/// apart from its caller.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unpaired(regs: u64, before: u64) -> i32 {
    let before = before as u8;
    if before == State::UNKNOWN {
        return 0;
    }
    let next = match before {
        State::TRAPPED => State::SIGNALLED,
        State::KILLED => State::KILLED,
        _ => {
            let current = Current::with_regs(Address(regs));
            if current.mode() != current::FILTER {
                return 0;
            }
            // With PTRACE_SYSEMU no call is made, and the filters are not asked. The last one of them
            // is known by the one before: the tracer has ended it by then.
            if current.is_traced() && current.is_emulated() {
                State::EMULATED
            } else if current.is_traced() && before == State::EMULATED {
                return 0;
            } else {
                refused(&current, Via::Pairing);
                return 0;
            }
        }
    };
    threads::set(bpf_get_current_pid_tgid() as u32, next);
    0
}

/// `__secure_computing(sd)` up to 6.14.
#[fexit(function = "__secure_computing")]
pub fn secure_computing_of_one(ctx: FExitContext) -> i32 {
    computed(ctx.arg::<i32>(1))
}

/// `__secure_computing()` from 6.15 on.
#[fexit(function = "__secure_computing")]
pub fn secure_computing_of_none(ctx: FExitContext) -> i32 {
    computed(ctx.arg::<i32>(0))
}

/// The filters have judged: 0, the call may be made, or -1.
#[inline(always)]
fn computed(result: i32) -> i32 {
    let tid = bpf_get_current_pid_tgid() as u32;
    match (result, threads::get(tid)) {
        // A thread that makes calls has left its signal behind.
        (0, State::SIGNALLED) => threads::set(tid, State::OUTSIDE),
        (0, _) | (_, State::KILLED) => {}
        (_, State::TRAPPED) => threads::set(tid, State::SIGNALLED),
        _ => refused(&Current::new(), Via::SecureComputing),
    }
    0
}

/// Reports a call that was not made, unless something else than a filter may be the reason.
#[inline(always)]
fn refused(current: &Current, via: Via) {
    let (nr, result) = (current.nr(), current.result());
    let (is_traced, has_listener) = (current.is_traced(), current.has_listener());
    // A tracer that lets a call be skipped makes it number -1.
    if is_traced && (nr < 0 || result >= 0) {
        return;
    }
    if matches!(via, Via::Pairing) {
        // Where the thread was killed while a tracer looked at the call, the filters are not asked:
        // the call returns what it began with.
        if current.is_pending(SIGKILL) && (is_traced || result == -ENOSYS) {
            return;
        }
    }
    // What a supervisor gave in the place of the call, or the call will be made again.
    if has_listener && (result >= 0 || RESTARTS.contains(&-result)) {
        return;
    }
    // A filter's error is at most MAX_ERRNO; 0 is allowed.
    if !(-MAX_ERRNO..=0).contains(&result) {
        return;
    }
    let action = if has_listener { Action::Unknown } else { Action::Errno };
    let data = -result as u32;
    report(&Denial { current, nr, data, flags: Seccomp::HAS_DATA, action, via });
}

/// `signal_generate(sig, info, task, group, result)`: a trap, and from 5.16 on a kill of a whole
/// process.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn seccomp_signal_generate(ctx: RawTracePointContext) -> i32 {
    let (info, task) = (ctx.arg::<u64>(1), ctx.arg::<u64>(2));
    if ctx.arg::<u32>(0) != SIGSYS || info <= LAST_SPECIAL_INFO {
        return 0;
    }
    forced(info, task)
}

/// SIGSYS was sent. A global function of scalars, for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forced(info: u64, task: u64) -> i32 {
    let (info, current) = (Address(info), Current::new());
    let code: i32 = info.read(global!(SECCOMP_OFFSETS, info_code));
    let mode = current.mode();
    // The kernel sends it to nobody but the caller; a process may send itself what it likes, but
    // only one with a filter is believed.
    if code != SYS_SECCOMP || task != current.task.0.0 || mode < current::FILTER {
        return 0;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    if threads::get(tid) == State::KILLED {
        return 0;
    }
    let sighand = current.task.0.follow(global!(SECCOMP_OFFSETS, sighand));
    let flags: u64 = sighand.read(global!(SECCOMP_OFFSETS, sigsys_flags));
    let is_kill = mode == current::DEAD || flags & SA_IMMUTABLE != 0;
    let (action, state) = match is_kill {
        true => (Action::KillProcess, State::KILLED),
        false => (Action::Trap, State::TRAPPED),
    };
    threads::set(tid, state);
    let denial = Denial {
        current: &current,
        nr: info.read(global!(SECCOMP_OFFSETS, info_syscall)),
        data: info.read(global!(SECCOMP_OFFSETS, info_errno)),
        flags: Seccomp::HAS_DATA,
        action,
        via: Via::Signal,
    };
    report(&denial);
    0
}

/// `sched_process_exit(task)`: a kill that sent no signal: of one thread of several, before 5.16 of
/// any.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn seccomp_process_exit(_ctx: RawTracePointContext) -> i32 {
    let current = Current::new();
    let mode = current.mode();
    if mode < current::FILTER {
        return 0;
    }
    if global!(SECCOMP_OFFSETS, keep_ended) == 1 {
        remember(current.task.tgid() as u64);
    }
    ended(mode as u64)
}

/// The processes with a filter that ended last: the audit log tells of them later.
#[map(name = "SECCOMP_ENDED")]
static ENDED: LruHashMap<u32, Ended> = LruHashMap::with_max_entries(1 << 10, 0);

/// Remembers the process that ends. A global function of a scalar, for the verifier.
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit the stack")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn remember(tgid: u64) -> i32 {
    let mut ended = Ended::new_zeroed();
    Current::new().task.identify(&mut ended.process);
    // SAFETY: the helper reads the clock.
    ended.time_ns = unsafe { bpf_ktime_get_boot_ns() };
    let _ = ENDED.insert(tgid as u32, &ended, 0);
    0
}

/// A thread with a filter ends. A global function of scalars, for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ended(mode: u64) -> i32 {
    let current = Current::new();
    let state = threads::get(bpf_get_current_pid_tgid() as u32);
    let code: u32 = current.task.0.read(global!(TASK_OFFSETS, exit_code));
    let (nr, result) = (current.nr(), current.result());
    let is_rolled_back = result == nr as i64;
    // Kernels that say so with the mode are sure. Others ended the thread inside the call, with the
    // registers as it began or rolled back, and without a signal.
    let is_killed = match mode as i32 {
        current::DEAD => state != State::KILLED,
        _ => {
            code == SIGSYS
                && nr >= 0
                && (is_rolled_back || result == -ENOSYS)
                && (matches!(state, State::OUTSIDE | State::UNKNOWN)
                    // Nobody notes that it comes out of the call that made it.
                    || (global!(SECCOMP_OFFSETS, is_paired) != 1 && state == State::INSIDE))
        }
    };
    if !is_killed {
        return 0;
    }
    // Registers are rolled back for the core dump, which there is unless other threads live on.
    let action = if is_rolled_back { Action::KillProcess } else { Action::KillThread };
    report(&Denial { current: &current, nr, data: 0, flags: 0, action, via: Via::Exit });
    0
}

/// `audit_seccomp(syscall, signr, code)`: the only place that knows of a call that is logged and
/// made, and which kill it is.
#[fentry(function = "audit_seccomp")]
pub fn audit_seccomp(ctx: FEntryContext) -> i32 {
    logged(ctx.arg::<u64>(0), ctx.arg::<u64>(2))
}

/// A global function of scalars, for the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn logged(nr: u64, code: u64) -> i32 {
    let action = match code as u32 {
        RET_LOG => Action::Log,
        RET_KILL_THREAD => Action::KillThread,
        RET_KILL_PROCESS => Action::KillProcess,
        _ => return 0,
    };
    if !matches!(action, Action::Log) {
        threads::set(bpf_get_current_pid_tgid() as u32, State::KILLED);
    }
    let current = Current::new();
    let via = Via::AuditSeccomp;
    report(&Denial { current: &current, nr: nr as i32, data: 0, flags: 0, action, via });
    0
}

/// `sched_process_fork(parent, child)`: the child's first `sys_exit` is the one of its parent's call.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn seccomp_process_fork(ctx: RawTracePointContext) -> i32 {
    threads::set(Task(Address(ctx.arg::<u64>(1))).tid(), State::INSIDE);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread that was not the leader has the leader's id now.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn seccomp_process_exec(_ctx: RawTracePointContext) -> i32 {
    threads::set(bpf_get_current_pid_tgid() as u32, State::INSIDE);
    0
}
