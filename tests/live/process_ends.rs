//! A process ends once, whatever its threads do, and a container with its first process only.

use std::collections::BTreeMap;
use std::env;
use std::process::{self, Command};
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::run;
use ctrace_tests::docker;
use ctrace_tests::facts::{in_vm, patience};
use ctrace_tests::marked::{self, mark_of, process as process_of};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::parallel::parallel;
use ctrace_tests::watch::Watch;

/// Where it is set, the test is the program with many threads.
const THREADS: &str = "CTRACE_TEST_THREADS";
/// More than there are processors, so that the last ones run at the same time.
const COUNT: usize = 24;

#[test]
fn many_threads() {
    if env::var_os(THREADS).is_some() {
        end_with_many_threads();
    }
    case("processes whose threads all end at once: one exit each", || {
        let runs = if in_vm() { 60 } else { 600 };
        let test = env::current_exe()?;
        let watch = Watch::processes(&[])?;
        let pids = parallel(runs, 2, |_| {
            let mut command = Command::new(&test);
            command.args(["--exact", "process_ends::many_threads"]).env(THREADS, "1");
            let mut child = command.stdout(process::Stdio::null()).spawn()?;
            let pid = u64::from(child.id());
            ensure!(child.wait()?.success(), "the program with threads failed");
            Ok(pid)
        })?;
        watch.fence()?;
        let ended = watch.stop()?;
        let mut exits: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        for event in ended.events.iter().filter(|event| event.is("exit")) {
            *exits.entry(process_of(event).context("an exit of nobody")?).or_default() += 1;
        }
        let missed = pids.iter().filter(|pid| !exits.keys().any(|(known, _)| known == *pid));
        equal("ends without an exit event", missed.count(), 0)?;
        let twice: Vec<_> = exits.iter().filter(|(_, count)| **count > 1).collect();
        println!("  exits {}, of them more than once {}", exits.len(), twice.len());
        ensure!(twice.is_empty(), "{} of {} ended more than once", twice.len(), exits.len());
        Ok(())
    });
}

/// Each thread leaves by itself, all at the same moment.
fn end_with_many_threads() -> ! {
    let barrier = Barrier::new(COUNT);
    thread::scope(|scope| {
        for _ in 0..COUNT {
            scope.spawn(|| {
                barrier.wait();
                // SAFETY: ends the process, with all its threads.
                unsafe { libc::syscall(libc::SYS_exit_group, 0) };
            });
        }
    });
    process::exit(1)
}

#[test]
fn a_pid_namespace_of_the_containers_own() {
    case("unshare --pid in a container: its end is not the container's", || {
        let engine = docker::shared()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("inner");
        // Unconfined: docker's profiles do not let a container have namespaces of its own.
        let options = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"].as_slice();
        let script = format!("unshare -p -f {} {mark}; exit 7", marked::PROGRAM);
        let container = engine.create(options, &["/bin/sh", "-c", &script])?;
        container.start_to_end()?.expect_code(7)?;
        let exec = watch.event("the inner exec", |event| mark_of(event) == Some(&mark))?;
        equal("container.id", exec.container_id(), Some(container.id.as_str()))?;
        equal("process.container_pid", exec.u64("/process/container_pid")?, 1)?;
        let inner = process_of(&exec);
        let exit =
            watch.event("its exit", |event| event.is("exit") && process_of(event) == inner)?;
        equal("container_end", exit.get("/exit/container_end"), Some(&false.into()))?;
        let is_end = |event: &ctrace_tests::event::Event| {
            event.container_id() == Some(&container.id)
                && event.get("/exit/container_end") == Some(&true.into())
        };
        let end = watch.event("the container's end", is_end)?;
        equal("exit.code", end.u64("/exit/code")?, 7)?;
        watch.fence()?;
        let ended = watch.stop()?;
        equal("ends", ended.events.iter().filter(|event| is_end(event)).count(), 1)
    });
}

#[test]
fn forks_wake_the_collector() {
    case("forks that no event asks for: the ring does not run full in between", || {
        const FORKS: u64 = 2000;
        // Nothing else wakes it: there are no events.
        let watch = Watch::oom(&["--lifecycle-ring-size", "16384"])?;
        let script = "i=0; while [ $i -lt $1 ]; do /bin/true; i=$((i+1)); done";
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", script, "sh", &FORKS.to_string()]);
        run(&mut command)?;
        thread::sleep(patience(2));
        let ended = watch.stop()?;
        let lost =
            ended.events.iter().map(|event| event.lost(Some("fork"))).sum::<Result<u64>>()?;
        println!("  of {FORKS} forks lost: {lost}");
        // A busy machine may be late now and then.
        ensure!(lost < FORKS / 4, "{lost} of {FORKS} forks were lost: nothing woke ctrace");
        Ok(())
    });
}
