//! Calls that are not made for another reason than a filter's answer, or by its supervisor's.
//!
//! Each program is a fork of the test that makes system calls only.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::denials::{denial, denials, watch};
use ctrace_tests::facts::kernel_at_least;
use ctrace_tests::oom_check::equal;
use ctrace_tests::seccomp::{install, install_with_listener, ret};

use crate::seccomp::{GETPGRP, GETPPID, GETPRIORITY, SCHED_GETPARAM};

/// The exit code of a program that could not do what it was to do.
const FAILED: i32 = 3;

/// Forks a program of this name; its id.
fn fork(name: &str, program: impl FnOnce()) -> Result<libc::pid_t> {
    let name = CString::new(name)?;
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error().into()),
        0 => {
            // SAFETY: the name ends in 0; the child ends here.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            }
            program();
            // SAFETY: as above.
            unsafe { libc::_exit(0) }
        }
        child => Ok(child),
    }
}

/// Waits for a stop or an end; its status.
fn wait(child: libc::pid_t) -> Result<i32> {
    let mut status = 0;
    // SAFETY: the status is an int; the child is this process's.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    ensure!(waited == child, "waitpid: {}", io::Error::last_os_error());
    Ok(status)
}

fn name(of: &str) -> String {
    format!("ct{}-{of}", std::process::id())
}

fn make(call: u32) -> i64 {
    // SAFETY: the call takes no address that is one.
    unsafe { libc::syscall(call.into(), 0_i64, 0_i64) }
}

fn require(is_so: bool) {
    if !is_so {
        // SAFETY: ends the program.
        unsafe { libc::_exit(FAILED) }
    }
}

#[test]
fn emulated_by_a_tracer() {
    case("PTRACE_SYSEMU: calls that a tracer makes are not denied", || {
        let watch = watch(&["--seccomp-pairing", "on"])?;
        let name = name("emu");
        let child = fork(&name, || {
            install(&[(GETPGRP, ret::ERRNO | 1)]);
            // SAFETY: plain integers.
            unsafe {
                libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::raise(libc::SIGSTOP);
            }
            for _ in 0..3 {
                make(GETPPID);
            }
            // Denied by the filter, and once more without the tracer's help.
            make(GETPGRP);
        })?;
        let resume = |how: libc::c_uint| {
            // SAFETY: the child is stopped; no address is passed.
            let resumed = unsafe { libc::ptrace(how, child, 0, 0) };
            ensure!(resumed == 0, "ptrace: {}", io::Error::last_os_error());
            Ok(())
        };
        ensure!(libc::WIFSTOPPED(wait(child)?), "the program did not stop");
        for _ in 0..3 {
            resume(libc::PTRACE_SYSEMU)?;
            ensure!(libc::WIFSTOPPED(wait(child)?), "the tracer saw no call");
        }
        resume(libc::PTRACE_CONT)?;
        equal("its end", wait(child)?, 0)?;
        let ended = watch.stop()?;
        let expected = [(denial("getpgrp", "errno", Some("EPERM")), 1)].into();
        equal("denials", &denials(&ended.events, &name)?, &expected)
    });
}

/// What the program wants of its next call: 0, to be made; 1, to be sent SIGSYS.
static SELECTOR: AtomicU8 = AtomicU8::new(0);
static DISPATCHED: AtomicU8 = AtomicU8::new(0);

#[test]
fn dispatched_to_the_program() {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    case("syscall user dispatch: calls that a program handles itself are not denied", || {
        if !kernel_at_least(5, 11)? || cfg!(not(target_arch = "x86_64")) {
            return Err(cannot("this kernel has no syscall user dispatch"));
        }
        extern "C" fn handle(_signal: libc::c_int) {
            SELECTOR.store(0, Ordering::SeqCst);
            DISPATCHED.fetch_add(1, Ordering::SeqCst);
        }
        let watch = watch(&["--seccomp-pairing", "on"])?;
        let name = name("disp");
        let child = fork(&name, || {
            install(&[(GETPGRP, ret::ERRNO | 1)]);
            let handler: extern "C" fn(libc::c_int) = handle;
            // SAFETY: the handler writes two bytes; the selector lives as long as the program.
            let is_on = unsafe {
                libc::signal(libc::SIGSYS, handler as libc::sighandler_t);
                libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, SELECTOR.as_ptr()) == 0
            };
            require(is_on);
            for _ in 0..3 {
                SELECTOR.store(1, Ordering::SeqCst);
                make(GETPPID);
            }
            require(DISPATCHED.load(Ordering::SeqCst) == 3);
            make(GETPGRP);
        })?;
        equal("its end", wait(child)?, 0)?;
        let ended = watch.stop()?;
        let expected = [(denial("getpgrp", "errno", Some("EPERM")), 1)].into();
        equal("denials", &denials(&ended.events, &name)?, &expected)
    });
}

/// `struct seccomp_notif` and `struct seccomp_notif_resp`: `include/uapi/linux/seccomp.h`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

#[repr(C)]
#[derive(Default)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Answers so many calls: getppid with an error, getpgrp with a value, others are made.
fn supervise(listener: i32, calls: u32) {
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    const CONTINUE: u32 = 1;
    for _ in 0..calls {
        let mut notification = Notification::default();
        // SAFETY: the struct is the kernel's.
        let received = unsafe { libc::ioctl(listener, RECEIVE as _, &raw mut notification) };
        require(received == 0);
        let id = notification.id;
        let mut answer = match u32::try_from(notification.nr) {
            Ok(GETPPID) => Answer { id, error: -libc::EACCES, ..Answer::default() },
            Ok(GETPGRP) => Answer { id, value: 5, ..Answer::default() },
            _ => Answer { id, flags: CONTINUE, ..Answer::default() },
        };
        // SAFETY: the struct is the kernel's.
        let sent = unsafe { libc::ioctl(listener, SEND as _, &raw mut answer) };
        require(sent == 0);
    }
}

#[test]
fn answered_by_a_supervisor() {
    case(
        "a supervisor: its errors are told as not certain, its values and leaves not at all",
        || {
            const USER_NOTIF: u32 = 0x7fc0_0000;
            let watch = watch(&[])?;
            let (name, supervisor) = (name("notif"), name("super"));
            let child = fork(&supervisor, || {
                let listener = install_with_listener(&[
                    (GETPPID, USER_NOTIF),
                    (GETPGRP, USER_NOTIF),
                    (GETPRIORITY, USER_NOTIF),
                    (SCHED_GETPARAM, ret::ERRNO | 1),
                ]);
                // SAFETY: the child makes system calls only.
                let caller = unsafe { libc::fork() };
                if caller == 0 {
                    let name = CString::new(name.as_str()).unwrap_or_default();
                    // SAFETY: the name ends in 0.
                    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
                    require(make(GETPPID) == -1 && make(GETPPID) == -1);
                    require(make(GETPGRP) == 5);
                    require(make(GETPRIORITY) > 0);
                    require(make(SCHED_GETPARAM) == -1);
                    // SAFETY: ends the program.
                    unsafe { libc::_exit(0) };
                }
                supervise(listener, 4);
                let mut status = 0;
                // SAFETY: the status is an int.
                unsafe { libc::waitpid(caller, &raw mut status, 0) };
                require(status == 0);
            })?;
            equal("its end", wait(child)?, 0)?;
            let ended = watch.stop()?;
            let expected: BTreeMap<_, _> = [
                (denial("getppid", "unknown", Some("EACCES")), 2),
                (denial("sched_getparam", "unknown", Some("EPERM")), 1),
            ]
            .into();
            equal("denials", &denials(&ended.events, &name)?, &expected)
        },
    );
}

#[test]
fn a_signal_of_somebody_else() {
    case("SIGSYS that is no filter's: of kill, and forged by the process itself", || {
        let watch = watch(&[])?;
        let (killed, forged) = (name("killed"), name("forged"));
        let child = fork(&killed, || {
            install(&[(GETPGRP, ret::ERRNO | 1)]);
            // SAFETY: plain integers.
            unsafe { libc::pause() };
        })?;
        // SAFETY: the child is this test's.
        unsafe { libc::kill(child, libc::SIGSYS) };
        equal("the signal that ended it", libc::WTERMSIG(wait(child)?), libc::SIGSYS)?;
        // Without a filter, what it says of itself is not believed.
        let child = fork(&forged, || {
            // SAFETY: all zeroes are a valid siginfo, which lives for the call.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                (info.si_signo, info.si_code) = (libc::SIGSYS, 1);
                let own = libc::getpid();
                libc::syscall(libc::SYS_rt_sigqueueinfo, own, libc::SIGSYS, &raw const info);
            }
        })?;
        equal("the signal that ended it", libc::WTERMSIG(wait(child)?), libc::SIGSYS)?;
        let ended = watch.stop()?;
        equal("denials", &denials(&ended.events, &killed)?, &BTreeMap::new())?;
        equal("denials", &denials(&ended.events, &forged)?, &BTreeMap::new())
    });
}
