//! How processes of the host end: each by its true cause, and whose doing it was.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::command::run;
use ctrace_tests::event::Event;
use ctrace_tests::facts::v2_mount;
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, pidfd, signal};
use ctrace_tests::watch::Watch;

/// Where it is set, the test is the program that ends this way.
const WAY: &str = "CTRACE_TEST_DEATH";
/// An address that nothing is mapped at.
const NOWHERE: usize = 0x10;

/// Ends this process, where it is one that is to end.
#[test]
fn doomed() {
    let Some(way) = env::var_os(WAY) else { return };
    // SAFETY: plain system calls; no core file is wanted of it.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    match way.to_str() {
        Some("fault") => {
            // SAFETY: nothing is there: this is meant to fail.
            unsafe { (NOWHERE as *mut u8).write_volatile(1) };
        }
        // SAFETY: ends the process.
        Some("abort") => unsafe { libc::abort() },
        Some("thread") => {
            // SAFETY: a system call with plain integers.
            let kill = || unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            let _ = thread::spawn(kill).join();
        }
        Some("alarm") => {
            // SAFETY: system calls with plain integers.
            unsafe {
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(1);
                libc::pause();
            }
        }
        Some("refused_process") => refused(libc::SECCOMP_RET_KILL_PROCESS),
        Some("refused_thread") => refused(libc::SECCOMP_RET_KILL_THREAD),
        Some("refused_trap") => refused(libc::SECCOMP_RET_TRAP),
        other => panic!("{other:?} is no way to end"),
    }
}

/// Calls what a seccomp filter refuses.
fn refused(action: u32) {
    let statement = |code: u32, k: u32, jump: (u8, u8)| libc::sock_filter {
        code: code as u16,
        jt: jump.0,
        jf: jump.1,
        k,
    };
    let filter = [
        // The system call's number is the first word of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, (0, 0)),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_getppid as u32, (0, 1)),
        statement(libc::BPF_RET | libc::BPF_K, action, (0, 0)),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, (0, 0)),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program lives for the call, and a fork has this one thread only, so that the end of
    // the thread is the end of its process.
    unsafe {
        if libc::fork() == 0 {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
            libc::syscall(libc::SYS_getppid);
            libc::_exit(0);
        }
        let mut status = 0;
        libc::wait(&raw mut status);
        libc::_exit(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 });
    }
}

/// Runs this program to the end of its choice; its id and status.
fn end(way: &str) -> Result<(u32, ExitStatus)> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--exact", "deaths::doomed", "--nocapture"]).env(WAY, way);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok((child.id(), child.wait()?))
}

/// The exit event of a process that a signal ended, and the signal's event.
fn both(watch: &Watch, pid: u32) -> Result<(Event, Event)> {
    let exit = watch.event("its exit", |event| event.is_exit_of(pid))?;
    let sent = watch.event("its signal", |event| event.is_signal_to(pid))?;
    equal("exit.signal", exit.str("/exit/signal")?, sent.str("/signal/signal")?)?;
    println!("  {}", exit.str("/exit/cause/text")?);
    Ok((exit, sent))
}

fn expect(event: &Event, pointers: &[(&str, &str)]) -> Result<()> {
    pointers.iter().try_for_each(|(pointer, truth)| equal(pointer, event.str(pointer)?, *truth))
}

#[test]
fn faults_and_signals_of_its_own() {
    case("a fault with its address, abort, a thread that kills all, an alarm", || {
        let watch = Watch::by_default(&[])?;
        let (pid, status) = end("fault")?;
        equal("status", status.signal(), Some(libc::SIGSEGV))?;
        let (exit, sent) = both(&watch, pid)?;
        expect(
            &exit,
            &[
                ("/exit/cause/kind", "fault"),
                ("/exit/cause/address", "0x10"),
                ("/exit/cause/code", "SEGV_MAPERR"),
            ],
        )?;
        expect(&sent, &[("/signal/via", "fault"), ("/signal/address", "0x10")])?;
        equal("sender", sent.get("/signal/sender"), None)?;

        let (pid, _) = end("abort")?;
        let (exit, sent) = both(&watch, pid)?;
        expect(&exit, &[("/exit/cause/kind", "signal"), ("/exit/signal", "SIGABRT")])?;
        equal("sender", sent.u64("/signal/sender/pid")?, u64::from(pid))?;

        let (pid, _) = end("thread")?;
        let (exit, _) = both(&watch, pid)?;
        expect(&exit, &[("/exit/signal", "SIGKILL"), ("/exit/cause/via", "process")])?;
        equal("sender", exit.u64("/exit/cause/sender/pid")?, u64::from(pid))?;
        ensure!(exit.str("/exit/cause/text")? == "the process itself", "{exit}");

        let (pid, _) = end("alarm")?;
        let (exit, sent) = both(&watch, pid)?;
        expect(&exit, &[("/exit/signal", "SIGALRM"), ("/exit/cause/via", "timer")])?;
        equal("sender", sent.get("/signal/sender"), None)?;
        watch.stop().map(drop)
    });
}

#[test]
fn seccomp() {
    case("a seccomp filter that kills the process, the thread, or traps", || {
        let watch = Watch::by_default(&[])?;
        for way in ["refused_process", "refused_thread", "refused_trap"] {
            let (pid, status) = end(way)?;
            equal(way, status.code(), Some(libc::SIGSYS))?;
            let is_it =
                |event: &Event| event.is("exit") && event.get("/process/ppid") == Some(&pid.into());
            let exit = watch.event(way, is_it)?;
            println!("  {way}: {}", exit.str("/exit/cause/text")?);
            expect(&exit, &[("/exit/signal", "SIGSYS"), ("/exit/cause/kind", "seccomp")])?;
            let victim = u32::try_from(exit.u64("/process/pid")?)?;
            let shown = watch.events(Default::default(), "all", |_| true)?;
            let is_twice = shown.iter().any(|event| event.is_signal_to(victim));
            equal("a signal event of it", is_twice, false)?;
        }
        watch.stop().map(drop)
    });
}

#[test]
fn a_broken_pipe() {
    case("SIGPIPE: the kernel's doing", || {
        let watch = Watch::by_default(&[])?;
        let mut child = Command::new("yes").stdout(Stdio::piped()).spawn()?;
        let pid = child.id();
        drop(child.stdout.take());
        equal("status", child.wait()?.signal(), Some(libc::SIGPIPE))?;
        let (exit, sent) = both(&watch, pid)?;
        expect(&exit, &[("/exit/cause/kind", "signal"), ("/exit/cause/via", "broken_pipe")])?;
        equal("sender", sent.get("/signal/sender"), None)?;
        watch.stop().map(drop)
    });
}

#[test]
fn killed_by_another() {
    case("kill(2) and pidfd_send_signal(2): who sent it", || {
        let watch = Watch::by_default(&[])?;
        let me = u64::from(std::process::id());
        let sleep = || Command::new("sleep").arg("1000").spawn();
        let mut child = sleep()?;
        let pid = child.id();
        signal(pid, Signal::Term)?;
        child.wait()?;
        let (exit, sent) = both(&watch, pid)?;
        expect(&exit, &[("/exit/signal", "SIGTERM"), ("/exit/cause/kind", "signal")])?;
        expect(&sent, &[("/signal/code", "SI_USER"), ("/signal/result", "delivered")])?;
        equal("sender", exit.u64("/exit/cause/sender/pid")?, me)?;
        equal("by_runtime", exit.get("/exit/cause/by_runtime"), Some(&false.into()))?;

        let mut child = sleep()?;
        let pid = child.id();
        let handle = pidfd(pid)?;
        // SAFETY: plain integers and no siginfo.
        let sent = unsafe {
            use std::os::fd::AsRawFd;
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), libc::SIGKILL, none, 0)
        };
        equal("pidfd_send_signal", sent, 0)?;
        child.wait()?;
        let (exit, _) = both(&watch, pid)?;
        equal("sender", exit.u64("/exit/cause/sender/pid")?, me)?;
        watch.stop().map(drop)
    });
}

#[test]
fn killed_with_its_cgroup() {
    case("cgroup.kill: the one who wrote it", || {
        let mount = v2_mount()?.ok_or_else(|| cannot("there is no cgroup v2"))?;
        let cgroup = Cgroup::in_hierarchy(&mount, &unique("cgroup-kill"))?;
        if !cgroup.has("cgroup.kill") {
            return Err(cannot("cgroup.kill came with 5.14"));
        }
        let watch = Watch::by_default(&[])?;
        let mut child = Command::new("sleep").arg("1000").spawn()?;
        cgroup.take(child.id())?;
        cgroup.kill()?;
        equal("status", child.wait()?.signal(), Some(libc::SIGKILL))?;
        let (exit, sent) = both(&watch, child.id())?;
        expect(&exit, &[("/exit/cause/kind", "signal"), ("/exit/cause/via", "cgroup_kill")])?;
        equal("sender", sent.u64("/signal/sender/pid")?, u64::from(std::process::id()))?;
        watch.stop().map(drop)
    });
}

#[test]
fn killed_with_its_parent() {
    case("PR_SET_PDEATHSIG: the end of its parent", || {
        let watch = Watch::by_default(&[])?;
        // The shell ends, and with it the sleep that it left behind.
        let script = "setpriv --pdeathsig KILL sleep 1000 >/dev/null & echo $!; \
                      until grep -q sleep /proc/$!/comm; do :; done";
        let output = Command::new("sh").args(["-c", script]).output()?;
        let pid: u32 = String::from_utf8(output.stdout)?.trim().parse().context("a pid")?;
        let (exit, _) = both(&watch, pid)?;
        expect(&exit, &[("/exit/cause/via", "parent_death"), ("/exit/cause/sender/comm", "sh")])?;
        watch.stop().map(drop)
    });
}

#[test]
fn plain_ends_are_left_out() {
    case("processes that end by themselves are no events by default", || {
        let watch = Watch::by_default(&[])?;
        let mut plain = Vec::new();
        for program in ["true", "false"] {
            let mut child = Command::new(program).spawn()?;
            plain.push(child.id());
            child.wait()?;
        }
        let (pid, _) = end("abort")?;
        both(&watch, pid)?;
        let ended = watch.stop()?;
        // They may have waited long for a CPU.
        let ends = ended.events.iter().filter(|event| event.is("exit") || event.is("signal"));
        let shown = ends.filter(|event| plain.iter().any(|pid| event.is_of(*pid)));
        equal("ends of them", shown.count(), 0)
    });
}

#[test]
fn plain_ends_stay_in_the_kernel() {
    case("a flood of plain ends: a ring of 30 ends holds those that matter", || {
        let watch = Watch::by_default(&["--bulk-ring-size", "4096"])?;
        let script = "i=0; while [ $i -lt 2000 ]; do (:); i=$((i+1)); done";
        let mut child = Command::new("sleep").arg("1000").spawn()?;
        watch.stall_while(|| {
            run(Command::new("/bin/sh").args(["-c", script]))?;
            signal(child.id(), Signal::Kill)
        })?;
        child.wait()?;
        both(&watch, child.id())?;
        let ended = watch.stop()?;
        let lost =
            ended.events.iter().map(|event| event.lost(Some("exit"))).sum::<Result<u64>>()?;
        equal("lost ends", lost, 0)
    });
}

#[test]
fn the_verdict_alone() {
    case("-e exit: the cause without the signal's event", || {
        let mut command = Command::new(ctrace_tests::facts::ctrace()?);
        command.args(["watch", "-e", "exit", "-o", "json"]);
        let watch = Watch::start(command)?.attached()?;
        let mut child = Command::new("sleep").arg("1000").spawn()?;
        signal(child.id(), Signal::Kill)?;
        child.wait()?;
        let exit = watch.event("its exit", |event| event.is_exit_of(child.id()))?;
        equal("sender", exit.u64("/exit/cause/sender/pid")?, u64::from(std::process::id()))?;
        let ended = watch.stop()?;
        let others = ended.events.iter().filter(|event| !event.is("exit") && !event.is("lost"));
        equal("other events", others.count(), 0)
    });
}

#[test]
fn every_signal() {
    case("-e signal:all: those that are handled or ignored too", || {
        let mut command = Command::new(ctrace_tests::facts::ctrace()?);
        command.args(["watch", "-e", "signal:all", "-o", "json"]);
        let watch = Watch::start(command)?.attached()?;
        let script = "trap : USR1; trap '' USR2; kill -USR1 $$; kill -USR2 $$; kill -CONT $$";
        let mut shell = Command::new("/bin/sh").args(["-c", script]).spawn()?;
        let pid = shell.id();
        ensure!(shell.wait()?.success(), "the shell failed");
        let is_sent = |name: &str| {
            let name = serde_json::Value::from(name);
            move |event: &Event| {
                event.is_signal_to(pid) && event.get("/signal/signal") == Some(&name)
            }
        };
        for (name, result) in [("SIGUSR1", "delivered"), ("SIGUSR2", "ignored")] {
            let sent = watch.event(name, is_sent(name))?;
            expect(&sent, &[("/signal/result", result), ("/signal/code", "SI_USER")])?;
            equal("fatal", sent.get("/signal/fatal"), Some(&false.into()))?;
            equal("sender", sent.u64("/signal/sender/pid")?, u64::from(pid))?;
        }
        // The kernel tells this process of the shell's end.
        let me = std::process::id();
        let is_child = |event: &Event| {
            event.is_signal_to(me) && event.get("/signal/code") == Some(&"CLD_EXITED".into())
        };
        let child = watch.event("SIGCHLD", is_child)?;
        equal("sender", child.get("/signal/sender"), None)?;
        watch.stop().map(drop)
    });
}
