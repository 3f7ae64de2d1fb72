//! Denials in containers: docker's own profile, and profiles of the tests'.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::Finished;
use ctrace_tests::denials::{Denial, denial, denials, of_program, watch};
use ctrace_tests::docker;
use ctrace_tests::event::Event;
use ctrace_tests::facts::patience;
use ctrace_tests::names::TempDir;
use ctrace_tests::oom_check::equal;
use ctrace_tests::seccomp::{Manner, Program, Results, results};
use serde_json::json;

use crate::seccomp::{
    GETPGRP, GETPPID, GETPRIORITY, PROGRAM, SCHED_GET_PRIORITY_MAX, SCHED_GETPARAM,
    SCHED_GETSCHEDULER, errors_of,
};

/// A container that has run the program to its end.
struct Done {
    id: String,
    finished: Finished,
    results: Results,
}

/// Runs the program as a container's first process.
fn run(program: &Program, options: &[&str]) -> Result<Done> {
    let engine = docker::shared()?;
    let mut all: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
    all.extend(program.container_options()?);
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let container = engine.create(&all, &Program::container_command(PROGRAM))?;
    let finished = container.start_to_end()?;
    let results = results(finished.text()?);
    Ok(Done { id: container.id.clone(), finished, results })
}

/// All events of the program are of its container.
fn is_of(events: &[Event], program: &Program, id: &str) -> Result<()> {
    for event in of_program(events, &program.name) {
        equal("container.id", event.container_id(), Some(id))?;
    }
    Ok(())
}

#[test]
fn dockers_own_profile() {
    case("docker's own profile: each denied call, and none that the kernel refuses", || {
        const ENOSYS: i32 = libc::ENOSYS;
        const NEWER_THAN_ANY_PROFILE: u32 = 1000;
        let denied = [
            (165, 5, "mount"),
            (250, 4, "keyctl"),
            (248, 3, "add_key"),
            (272, 2, "unshare"),
            (308, 1, "setns"),
            (246, 300, "kexec_load"),
            (298, 2, "perf_event_open"),
            (155, 1, "pivot_root"),
        ];
        let mut calls: Vec<_> = denied.iter().map(|(number, times, _)| (*number, *times)).collect();
        calls.push((NEWER_THAN_ANY_PROFILE, 2));
        // Allowed.
        calls.push((GETPPID, 3));
        let watch = watch(&[])?;
        // The file is root's.
        let program = Program::new(&[], &calls).chmod("/etc/passwd");
        let Done { id, finished, results } = run(&program, &["--user", "1000"])?;
        ensure!(finished.status.success(), "{}", finished.report("the program failed"));
        equal("EPERM of the kernel", errors_of(&results, libc::SYS_chmod as u32, libc::EPERM), 1)?;
        let ended = watch.stop()?;
        let mut expected: BTreeMap<Denial, u64> = BTreeMap::new();
        for (number, times, name) in denied {
            let count = errors_of(&results, number, libc::EPERM);
            equal(name, count, u64::from(times))?;
            expected.insert(denial(name, "errno", Some("EPERM")), count);
        }
        let count = errors_of(&results, NEWER_THAN_ANY_PROFILE, ENOSYS);
        equal("ENOSYS", count, 2)?;
        let seen = denials(&ended.events, &program.name)?;
        // Older versions of docker's profile answer a call that they do not know like any other.
        let of_newer = |denial: &Denial| denial.0 == NEWER_THAN_ANY_PROFILE.to_string();
        let newer: Vec<_> = seen.iter().filter(|(denial, _)| of_newer(denial)).collect();
        match newer.as_slice() {
            [((_, _, action, errno), 2)] => {
                equal("action", action.as_str(), "errno")?;
                equal("errno", errno.as_deref(), Some("ENOSYS"))?;
            }
            other => anyhow::bail!("the call that is newer than the profile: {other:?}"),
        }
        let known: BTreeMap<_, _> =
            seen.into_iter().filter(|(denial, _)| !of_newer(denial)).collect();
        equal("denials", &known, &expected)?;
        is_of(&ended.events, &program, &id)
    });
}

/// Writes a profile that allows all but these calls, which runc must not need for itself.
fn profile(directory: &TempDir, rules: &[(&str, &str, Option<u32>)]) -> Result<String> {
    let rule = |(name, action, errno): &(&str, &str, Option<u32>)| {
        let mut rule = json!({ "names": [name], "action": action });
        if let Some(errno) = errno {
            rule["errnoRet"] = (*errno).into();
        }
        rule
    };
    let rules: Vec<_> = rules.iter().map(rule).collect();
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    let path = directory.path().join("profile.json");
    fs::write(&path, profile.to_string())?;
    Ok(format!("seccomp={}", path.display()))
}

#[test]
fn a_profile_of_errors() {
    case("a profile of other errors, traps and logged calls: each with its container", || {
        let directory = TempDir::new("profile")?;
        let option = profile(
            &directory,
            &[
                ("sched_get_priority_max", "SCMP_ACT_ERRNO", Some(95)),
                ("getpgrp", "SCMP_ACT_ERRNO", Some(38)),
                ("getpriority", "SCMP_ACT_TRAP", None),
                ("sched_getparam", "SCMP_ACT_LOG", None),
                ("sched_getscheduler", "SCMP_ACT_ERRNO", Some(13)),
            ],
        )?;
        let calls = [
            (SCHED_GET_PRIORITY_MAX, 100),
            (GETPGRP, 2),
            (GETPRIORITY, 3),
            (SCHED_GETPARAM, 4),
            (SCHED_GETSCHEDULER, 1),
        ];
        let watch = watch(&[])?;
        let program =
            Program::new(&[], &calls).manner(Manner { handles: true, ..Manner::default() });
        let Done { id, finished, results } = run(&program, &["--security-opt", &option])?;
        ensure!(finished.status.success(), "{}", finished.report("the program failed"));
        let logged = denial("sched_getparam", "log", None);
        // The audit log tells it later, and only where no function can be hooked.
        watch.events(patience(10), "the logged calls", |events| {
            denials(events, &program.name).is_ok_and(|seen| seen.get(&logged) == Some(&4))
        })?;
        let ended = watch.stop()?;
        let expected: BTreeMap<_, _> = [
            (
                denial("sched_get_priority_max", "errno", Some("EOPNOTSUPP")),
                errors_of(&results, SCHED_GET_PRIORITY_MAX, 95),
            ),
            (denial("getpgrp", "errno", Some("ENOSYS")), errors_of(&results, GETPGRP, 38)),
            (denial("getpriority", "trap", None), 3),
            (logged, 4),
            (
                denial("sched_getscheduler", "errno", Some("EACCES")),
                errors_of(&results, SCHED_GETSCHEDULER, 13),
            ),
        ]
        .into();
        equal("calls that failed", expected.values().sum::<u64>(), 110)?;
        equal("denials", &denials(&ended.events, &program.name)?, &expected)?;
        is_of(&ended.events, &program, &id)
    });
}

#[test]
fn profiles_that_kill() {
    case("profiles that kill a process and a thread", || {
        let plain = Manner::default();
        let in_thread = Manner { in_thread: true, ..plain };
        for (answer, manner, action) in [
            ("SCMP_ACT_KILL_PROCESS", plain, "kill_process"),
            ("SCMP_ACT_KILL_PROCESS", in_thread, "kill_process"),
            ("SCMP_ACT_KILL_THREAD", in_thread, "kill_thread"),
        ] {
            println!("  {answer} {manner:?}");
            let directory = TempDir::new("profile")?;
            let option = profile(&directory, &[("sched_getscheduler", answer, None)])?;
            let watch = watch(&[])?;
            let program = Program::new(&[], &[(SCHED_GETSCHEDULER, 1)]).manner(manner);
            let Done { id, .. } = run(&program, &["--security-opt", &option])?;
            let ended = watch.stop()?;
            let expected = [(denial("sched_getscheduler", action, None), 1)].into();
            equal("denials", &denials(&ended.events, &program.name)?, &expected)?;
            is_of(&ended.events, &program, &id)?;
        }
        Ok(())
    });
}

#[test]
fn of_one_container() {
    case("--container: the denials of another one are left out", || {
        let engine = docker::shared()?;
        let name = ctrace_tests::names::unique("seccomp");
        let watch = watch(&["--container", &name, "--wait"])?;
        let other = Program::new(&[], &[(165, 20)]);
        run(&other, &[])?;
        let script = "mount -t tmpfs none /tmp; mount -t tmpfs none /tmp; exit 0";
        let id = engine.run_to_end(&name, &[], &["/bin/sh", "-c", script])?;
        let ended = watch.stop()?;
        let of_id = |event: &&Event| event.container_id() == Some(&id);
        let mounts = ended.events.iter().filter(of_id);
        let mounts =
            mounts.filter(|event| event.str("/seccomp/syscall").is_ok_and(|s| s == "mount"));
        let counts = mounts.map(|event| event.u64("/seccomp/count")).collect::<Result<Vec<_>>>()?;
        ensure!(counts.iter().sum::<u64>() >= 2, "mounts of the container: {counts:?}");
        let strangers = ended.events.iter().filter(|event| !of_id(event)).count();
        equal("events of others", strangers, 0)
    });
}
