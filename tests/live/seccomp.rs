//! System calls that a seccomp filter denies: each once, with what the program itself counted.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::denials::{Denial, denial, denials, of_program, watch};
use ctrace_tests::event::Event;
use ctrace_tests::facts::{in_vm, patience, program as installed};
use ctrace_tests::oom_check::equal;
use ctrace_tests::seccomp::{Manner, Program, Ran, Results, become_program, ret};
use ctrace_tests::watch::{Ended, Watch};

/// The test that is every program.
pub const PROGRAM: &str = "seccomp::program";

// Calls that neither the C library nor a runtime makes by itself.
pub const GETPPID: u32 = 110;
pub const GETPGRP: u32 = 111;
pub const GETPRIORITY: u32 = 140;
pub const SCHED_GETPARAM: u32 = 143;
pub const SCHED_GETSCHEDULER: u32 = 145;
pub const SCHED_GET_PRIORITY_MAX: u32 = 146;
/// No kernel has it.
const NO_CALL: u32 = 5000;

#[test]
fn program() {
    become_program();
}

/// Stops watching; the denials of the program.
pub fn seen(watch: Watch, program: &Program) -> Result<(Ended, BTreeMap<Denial, u64>)> {
    let ended = watch.stop()?;
    let denials = denials(&ended.events, &program.name)?;
    Ok((ended, denials))
}

pub fn errors_of(results: &Results, call: u32, error: i32) -> u64 {
    results.get(&(call, -i64::from(error))).copied().unwrap_or(0)
}

/// A filter that answers each call with another error.
fn errors() -> Program {
    let answers = [
        (GETPPID, ret::ERRNO | 1),
        (GETPGRP, ret::ERRNO | 95),
        (GETPRIORITY, ret::ERRNO | 38),
        (SCHED_GETPARAM, ret::ERRNO),
        (SCHED_GETSCHEDULER, ret::ERRNO | 4000),
        (NO_CALL, ret::ERRNO | 13),
    ];
    let calls = [
        (GETPPID, 2000),
        (GETPGRP, 3),
        (GETPRIORITY, 2),
        (SCHED_GETPARAM, 4),
        (SCHED_GETSCHEDULER, 1),
        (NO_CALL, 5),
        // Allowed: it fails, and succeeds.
        (SCHED_GET_PRIORITY_MAX, 7),
    ];
    Program::new(&answers, &calls)
}

fn expected_errors(Ran { results, .. }: &Ran) -> BTreeMap<Denial, u64> {
    [
        (denial("getppid", "errno", Some("EPERM")), errors_of(results, GETPPID, 1)),
        (denial("getpgrp", "errno", Some("EOPNOTSUPP")), errors_of(results, GETPGRP, 95)),
        (denial("getpriority", "errno", Some("ENOSYS")), errors_of(results, GETPRIORITY, 38)),
        (denial("sched_getparam", "errno", None), errors_of(results, SCHED_GETPARAM, 0)),
        (denial("sched_getscheduler", "errno", None), errors_of(results, SCHED_GETSCHEDULER, 4000)),
        (denial("5000", "errno", Some("EACCES")), errors_of(results, NO_CALL, 13)),
    ]
    .into()
}

#[test]
fn errors_are_counted() {
    case("a filter of errors: each call, errno and count as the program counted itself", || {
        let (watch, program) = (watch(&[])?, errors());
        let ran = program.run(PROGRAM)?;
        let (ended, denials) = seen(watch, &program)?;
        let expected = expected_errors(&ran);
        equal("calls counted by the program", expected.values().sum::<u64>(), 2015)?;
        println!("  {:?}", denials);
        equal("denials", &denials, &expected)?;
        let events: Vec<_> = of_program(&ended.events, &program.name).collect();
        ensure!(events.len() < 30, "{} events: nothing was folded", events.len());
        for event in &events {
            equal("pid", event.u64("/process/pid")?, u64::from(ran.pid))?;
            equal("args", event.array("/seccomp/args")?.len(), 6)?;
            equal("first argument", event.u64("/seccomp/args/0")?, 11)?;
            equal("sixth argument", event.u64("/seccomp/args/5")?, 66)?;
            let is_enosys = event.get("/seccomp/errno").is_some_and(|errno| errno == "ENOSYS");
            equal(
                "enosys_by_profile",
                event.get("/seccomp/enosys_by_profile"),
                Some(&is_enosys.into()),
            )?;
        }
        Ok(())
    });
}

#[test]
fn each_denial_by_itself() {
    case("--no-fold: an event for each denial", || {
        let (watch, program) = (watch(&["--no-fold"])?, errors());
        let ran = program.run(PROGRAM)?;
        let (ended, denials) = seen(watch, &program)?;
        equal("denials", &denials, &expected_errors(&ran))?;
        let events = of_program(&ended.events, &program.name).count() as u64;
        equal("events", events, denials.values().sum::<u64>())
    });
}

#[test]
fn many_processes_are_counted() {
    case("processes of one name: counted together, nothing is lost", || {
        let watch = watch(&[])?;
        let program = Program::new(&[(GETPPID, ret::ERRNO | 1)], &[(GETPPID, 50)]);
        let mut counted = 0;
        for _ in 0..20 {
            counted += errors_of(&program.run(PROGRAM)?.results, GETPPID, 1);
        }
        let (_, denials) = seen(watch, &program)?;
        let expected = [(denial("getppid", "errno", Some("EPERM")), counted)].into();
        equal("denials", &denials, &expected)
    });
}

#[test]
fn traps_and_kills() {
    case("traps, kills of a thread and of a process: each once, not again as a lost call", || {
        let filter = |answer| vec![(GETPPID, answer)];
        let in_thread = Manner { in_thread: true, ..Manner::default() };
        let handles = Manner { handles: true, ..Manner::default() };
        let plain = Manner::default();
        let cases = [
            (ret::TRAP | 7, 3, handles, None, "trap", Some(3)),
            (ret::TRAP | 7, 1, plain, Some(libc::SIGSYS), "trap", Some(1)),
            (ret::KILL_PROCESS, 1, plain, Some(libc::SIGSYS), "kill_process", Some(1)),
            (ret::KILL_PROCESS, 1, in_thread, Some(libc::SIGSYS), "kill_process", Some(1)),
            (ret::KILL_THREAD, 1, in_thread, None, "kill_thread", Some(1)),
            // With one thread it is a kill of the process, and only some kernels tell the difference.
            (ret::KILL_THREAD, 1, plain, Some(libc::SIGSYS), "kill_", None),
        ];
        for (answer, times, manner, signal, action, count) in cases {
            println!("  {answer:#x} {manner:?}");
            let watch = watch(&[])?;
            let program = Program::new(&filter(answer), &[(GETPPID, times)]).manner(manner);
            let ran = program.run(PROGRAM)?;
            equal("its end", ran.status.signal(), signal)?;
            let (ended, denials) = seen(watch, &program)?;
            match count {
                Some(count) => {
                    let expected = [(denial("getppid", action, None), count)].into();
                    equal("denials", &denials, &expected)?;
                }
                None => {
                    let all: Vec<_> = denials.iter().collect();
                    ensure!(
                        matches!(all.as_slice(), [((_, _, seen, _), 1)] if seen.starts_with(action)),
                        "{all:?}"
                    );
                }
            }
            for event in of_program(&ended.events, &program.name) {
                equal("first argument", event.u64("/seccomp/args/0")?, 11)?;
                if action == "trap" {
                    equal("data", event.u64("/seccomp/data")?, 7)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn logged_calls() {
    case("a call that is logged and allowed: told, with its process", || {
        let watch = watch(&[])?;
        let program = Program::new(&[(GETPPID, ret::LOG)], &[(GETPPID, 3)]);
        let ran = program.run(PROGRAM)?;
        let total = |events: &[Event]| -> u64 {
            let of_program = of_program(events, &program.name);
            of_program.filter_map(|event| event.u64("/seccomp/count").ok()).sum()
        };
        // The audit log tells it later, and only where no function can be hooked.
        watch.events(patience(10), "the logged calls", |events| total(events) >= 3)?;
        let (ended, denials) = seen(watch, &program)?;
        equal("logged", &denials, &[(denial("getppid", "log", None), 3)].into())?;
        for event in of_program(&ended.events, &program.name) {
            equal("pid", event.u64("/process/pid")?, u64::from(ran.pid))?;
            equal("attribution", event.str("/attribution")? == "unknown", false)?;
        }
        Ok(())
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_abis() {
    case("calls of the 32-bit ABI and of x32: by the names of their tables", || {
        const I386_GETPPID: u32 = 64;
        const X32_GETPPID: u32 = 0x4000_0000 | GETPPID;
        let watch = watch(&[])?;
        let compat = Program::new(&[(I386_GETPPID, ret::ERRNO | 1)], &[(I386_GETPPID, 3)])
            .manner(Manner { compat: true, ..Manner::default() });
        let ran = compat.run(PROGRAM)?;
        let x32 = Program::new(&[(X32_GETPPID, ret::ERRNO | 13)], &[(X32_GETPPID, 2)]);
        x32.run(PROGRAM)?;
        let (ended, seen_compat) = seen(watch, &compat)?;
        let of = |arch: &str, errno: &str, count: u64| {
            let text = |text: &str| text.to_owned();
            let denial = (text("getppid"), text(arch), text("errno"), Some(text(errno)));
            BTreeMap::from([(denial, count)])
        };
        equal("x32", &denials(&ended.events, &x32.name)?, &of("x32", "EACCES", 2))?;
        if errors_of(&ran.results, I386_GETPPID, 1) == 0 {
            return Err(cannot("x32 is as expected, but this kernel has no 32-bit ABI"));
        }
        equal("i386", &seen_compat, &of("i386", "EPERM", 3))?;
        for event in of_program(&ended.events, &compat.name) {
            equal("first argument", event.u64("/seccomp/args/0")?, 11)?;
            equal("fourth argument", event.u64("/seccomp/args/3")?, 44)?;
        }
        Ok(())
    });
}

#[test]
fn nothing_denied() {
    case("threads, forks, signals, exec by a thread below a filter that allows: no denial", || {
        let watch = watch(&[])?;
        let program = Program::new(&[(NO_CALL, ret::ERRNO | 1)], &[(GETPPID, 1000)])
            .manner(Manner { storm: true, ..Manner::default() });
        let ran = program.run(PROGRAM)?;
        ensure!(ran.status.success(), "{}", ran.status);
        let (ended, denials) = seen(watch, &program)?;
        equal("denials", &denials, &BTreeMap::new())?;
        let of_pid = ended.events.iter().filter(|event| event.is_of(ran.pid)).count();
        equal("events of the process after its exec", of_pid, 0)
    });
}

#[test]
fn the_kernels_own_errors() {
    case("a call that the filter allows and the kernel refuses: no denial", || {
        let watch = watch(&[])?;
        let program =
            Program::new(&[(GETPPID, ret::ERRNO | 1)], &[(GETPPID, 1)]).chmod("/etc/passwd");
        let setpriv = installed("setpriv")?;
        let setpriv = setpriv.to_str().context("its path is UTF-8")?;
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let around = [&[setpriv], user.as_slice()].concat();
        let Ok(ran) = program.run_in(PROGRAM, &around) else {
            return Err(cannot("nobody may not run this test's executable"));
        };
        equal("EPERM of the kernel", errors_of(&ran.results, libc::SYS_chmod as u32, 1), 1)?;
        let (_, denials) = seen(watch, &program)?;
        equal("denials", &denials, &[(denial("getppid", "errno", Some("EPERM")), 1)].into())
    });
}

#[test]
fn traced() {
    case(
        "a process that strace traces: denials once; calls that the tracer skips are none",
        || {
            let strace = installed("strace")?;
            let strace = strace.to_str().context("its path is UTF-8")?;
            let watch = watch(&[])?;
            let program = Program::new(&[(GETPPID, ret::ERRNO | 1)], &[(GETPPID, 5), (GETPGRP, 5)]);
            let inject = ["-f", "-o", "/dev/null", "--inject=getpgrp:error=EACCES"];
            let ran = program.run_in(PROGRAM, &[&[strace], inject.as_slice()].concat())?;
            equal("denied", errors_of(&ran.results, GETPPID, 1), 5)?;
            equal("injected", errors_of(&ran.results, GETPGRP, 13), 5)?;
            let (_, denials) = seen(watch, &program)?;
            equal("denials", &denials, &[(denial("getppid", "errno", Some("EPERM")), 5)].into())
        },
    );
}

#[test]
fn without_pairing() {
    case("--seccomp-pairing off: said, and signals are still seen", || {
        let watch = watch(&["--seccomp-pairing", "off"])?;
        let errors = Program::new(&[(GETPPID, ret::ERRNO | 1)], &[(GETPPID, 3)]);
        errors.run(PROGRAM)?;
        let killed = Program::new(&[(GETPPID, ret::KILL_PROCESS)], &[(GETPPID, 1)]);
        killed.run(PROGRAM)?;
        let (ended, seen_errors) = seen(watch, &errors)?;
        let attached = ended.stderr.iter().find(|line| line.starts_with("attached:"));
        let is_hooked = attached.is_some_and(|line| line.contains("fexit"));
        let is_said = ended.stderr.iter().any(|line| {
            line.starts_with("missing: seccomp") && line.contains("--seccomp-pairing off")
        });
        equal("said to be missing", is_said, !is_hooked)?;
        equal(
            "denials by errno",
            seen_errors.values().sum::<u64>(),
            if is_hooked { 3 } else { 0 },
        )?;
        let kills = denials(&ended.events, &killed.name)?;
        equal("kills", &kills, &[(denial("getppid", "kill_process", None), 1)].into())
    });
}

#[test]
fn both_ways_agree() {
    case("__secure_computing and pairing: the same denials, event by event", || {
        let (function, pairing) =
            (watch(&["--no-fold"])?, watch(&["--no-fold", "--seccomp-pairing", "on"])?);
        let handles = Manner { handles: true, ..Manner::default() };
        let programs = [
            errors(),
            Program::new(&[(GETPPID, ret::TRAP)], &[(GETPPID, 2)]).manner(handles),
            Program::new(&[(GETPPID, ret::KILL_PROCESS)], &[(GETPPID, 1)]),
        ];
        for program in &programs {
            program.run(PROGRAM)?;
        }
        let (function, pairing) = (function.stop()?, pairing.stop()?);
        let list = |ended: &Ended, program: &Program| -> Result<Vec<_>> {
            of_program(&ended.events, &program.name)
                .map(|event| {
                    let fields = ["syscall", "arch", "args", "action", "errno", "data"];
                    let field = |name| event.get(&format!("/seccomp/{name}")).cloned();
                    Ok((event.u64("/process/tid")?, fields.map(field)))
                })
                .collect()
        };
        for program in &programs {
            let (of_function, of_pairing) = (list(&function, program)?, list(&pairing, program)?);
            ensure!(!of_pairing.is_empty(), "no event of {}", program.name);
            equal("events", &of_function, &of_pairing)?;
        }
        let ways = |ended: &Ended| -> Result<Vec<String>> {
            let of_errors = of_program(&ended.events, &programs[0].name);
            of_errors.map(|event| Ok(event.str("/seccomp/via")?.to_owned())).collect()
        };
        println!("  via {:?} and {:?}", ways(&function)?.first(), ways(&pairing)?.first());
        ensure!(ways(&pairing)?.iter().all(|via| via == "pairing"), "not by pairing");
        let is_fexit = ways(&function)?.iter().all(|via| via == "fexit");
        ensure!(is_fexit || !in_vm(), "Debian's kernels can be hooked at functions");
        Ok(())
    });
}
