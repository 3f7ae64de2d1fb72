//! How containers end, held against what the engine says.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::run;
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::program;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::podman;
use ctrace_tests::watch::Watch;

use crate::MIB;

const LIMIT: [&str; 2] = ["--memory", "32m"];
const STOPPABLE: &str = "--stop-signal=SIGTERM";

/// The end of a container: its exit event, with the code that the engine shows.
fn end(watch: &Watch, container: &Container) -> Result<Event> {
    let is_end = |event: &Event| {
        event.container_id() == Some(&container.id)
            && event.get("/exit/container_end") == Some(&true.into())
    };
    let end = watch.event("the container's end", is_end)?;
    let code = u64::try_from(container.wait()?)?;
    equal("exit code by wait", code, container.exit_code()?)?;
    equal("exit.runtime_code", end.u64("/exit/runtime_code")?, code)?;
    println!("  {code}: {}", end.str("/exit/cause/text")?);
    Ok(end)
}

fn expect(event: &Event, truths: &[(&str, &str)]) -> Result<()> {
    truths.iter().try_for_each(|(pointer, truth)| equal(pointer, event.str(pointer)?, *truth))
}

fn by_runtime(event: &Event, truth: bool) -> Result<()> {
    equal("by_runtime", event.get("/exit/cause/by_runtime"), Some(&truth.into()))
}

#[test]
fn out_of_memory() {
    case("the OOM killer takes a container's first process", || {
        let watch = Watch::by_default(&[])?;
        let (container, mut gate) = docker::shared()?.start_gated(&LIMIT, "/bin/tail /dev/zero")?;
        let pid = container.pid()?;
        gate.open()?;
        let kill = watch.oom_kill(pid)?;
        let end = end(&watch, &container)?;
        expect(&end, &[("/exit/cause/kind", "oom"), ("/exit/signal", "SIGKILL")])?;
        equal("oom_id", end.u64("/exit/cause/oom_id")?, kill.u64("/oom/id")?)?;
        equal("oom_cgroup", end.get("/exit/cause/oom_cgroup"), kill.get("/oom/oom_cgroup"))?;
        equal("code", end.u64("/exit/runtime_code")?, 137)?;
        equal("docker's OOMKilled", container.oom_killed()?, true)?;
        equal("oom_kills_inside", end.u64("/exit/oom_kills_inside")?, 0)?;
        let sent = watch.event("the signal", |event| event.is_signal_to(pid))?;
        equal("sender", sent.get("/signal/sender"), None)?;
        equal("signal.via", sent.str("/signal/via")?, "oom")?;
        watch.stop().map(drop)
    });
}

#[test]
fn a_child_out_of_memory() {
    case("the OOM killer takes a child; the container goes on, and is stopped", || {
        let watch = Watch::by_default(&[])?;
        let script = "trap 'exit 143' TERM; /bin/tail /dev/zero & \
                      while :; do sleep 1000 & wait $!; done";
        let options = [&LIMIT[..], &[STOPPABLE]].concat();
        let container = docker::shared()?.start(&options, &["/bin/sh", "-c", script])?;
        let is_child = |event: &Event| {
            event.is("exit")
                && event.container_id() == Some(&container.id)
                && event.get("/exit/cause/kind") == Some(&"oom".into())
        };
        let child = watch.event("the child's end", is_child)?;
        equal("container_end", child.get("/exit/container_end"), Some(&false.into()))?;
        equal("runtime_code", child.get("/exit/runtime_code"), None)?;
        container.stop(60)?;
        let end = end(&watch, &container)?;
        expect(&end, &[("/exit/cause/kind", "exit"), ("/exit/cause/signal", "SIGTERM")])?;
        equal("exit.code", end.u64("/exit/code")?, 143)?;
        by_runtime(&end, true)?;
        equal("oom_kills_inside", end.u64("/exit/oom_kills_inside")?, 1)?;
        watch.stop().map(drop)
    });
}

#[test]
fn stopped_and_killed() {
    case("docker stop of one that does not mind SIGTERM, docker kill", || {
        let engine = docker::shared()?;
        let watch = Watch::by_default(&[])?;
        let container = engine.start(&[STOPPABLE], &["/bin/sleep", "1000"])?;
        container.stop(1)?;
        let stopped = end(&watch, &container)?;
        let container = engine.start(&[], &["/bin/sleep", "1000"])?;
        container.kill()?;
        let killed = end(&watch, &container)?;
        for end in [stopped, killed] {
            equal("code", end.u64("/exit/runtime_code")?, 137)?;
            expect(&end, &[("/exit/cause/kind", "signal"), ("/exit/signal", "SIGKILL")])?;
            by_runtime(&end, true)?;
            let sender = end.str("/exit/cause/sender/comm")?;
            println!("  sent by {sender}");
        }
        watch.stop().map(drop)
    });
}

#[test]
fn stopped_by_podman() {
    case("podman stop of one that does not mind SIGTERM", || {
        let watch = Watch::by_default(&[])?;
        let container = podman::shared()?.start(&[STOPPABLE], &["/bin/sleep", "1000"])?;
        container.stop(1)?;
        let end = end(&watch, &container)?;
        equal("code", end.u64("/exit/runtime_code")?, 137)?;
        match end.str("/exit/cause/sender/comm")? {
            // crun runs itself by a file descriptor, and an old kernel gives it its number as a name.
            comm if comm.bytes().all(|byte| byte.is_ascii_digit()) => {
                equal("by_runtime", end.get("/exit/cause/by_runtime"), None)?;
            }
            _ => by_runtime(&end, true)?,
        }
        watch.stop().map(drop)
    });
}

#[test]
fn killed_from_the_host() {
    case("kill -9 of a host's shell", || {
        let watch = Watch::by_default(&[])?;
        let container = docker::shared()?.start(&[], &["/bin/sleep", "1000"])?;
        let mut shell = Command::new("/bin/sh");
        let mut shell = shell.args(["-c", &format!("kill -9 {}", container.pid()?)]).spawn()?;
        ensure!(shell.wait()?.success(), "the shell could not kill it");
        let end = end(&watch, &container)?;
        equal("sender", end.u64("/exit/cause/sender/pid")?, u64::from(shell.id()))?;
        equal("its container", end.get("/exit/cause/sender/container"), None)?;
        equal("code", end.u64("/exit/runtime_code")?, 137)?;
        by_runtime(&end, false)?;
        watch.stop().map(drop)
    });
}

#[test]
fn killed_from_another_container() {
    case("kill -9 from a container of the host's pid namespace", || {
        let engine = docker::shared()?;
        let watch = Watch::by_default(&[])?;
        let container = engine.start(&[], &["/bin/sleep", "1000"])?;
        let script = format!("kill -9 {}", container.pid()?);
        // Named like a runtime, which it is not.
        let script = format!("printf runc >/proc/$$/comm; {script}");
        let other = engine.create(&["--pid=host"], &["/bin/sh", "-c", &script])?;
        other.start_to_end()?.expect_code(0)?;
        let end = end(&watch, &container)?;
        let sender = end.str("/exit/cause/sender/container/id")?;
        equal("the sender's container", sender, other.id.as_str())?;
        equal("its name", end.str("/exit/cause/sender/comm")?, "runc")?;
        by_runtime(&end, false)?;
        watch.stop().map(drop)
    });
}

#[test]
fn exit_codes() {
    case("containers that end by themselves: 0, 1, 255", || {
        let watch = Watch::by_default(&[])?;
        for code in [0, 1, 255] {
            let script = format!("exit {code}");
            let container = docker::shared()?.create(&[], &["/bin/sh", "-c", &script])?;
            container.start_to_end()?.expect_code(code)?;
            let end = end(&watch, &container)?;
            equal("exit.code", end.u64("/exit/code")?, u64::try_from(code)?)?;
            expect(&end, &[("/exit/cause/kind", "exit")])?;
            equal("sender", end.get("/exit/cause/sender"), None)?;
            by_runtime(&end, false)?;
        }
        watch.stop().map(drop)
    });
}

#[test]
fn ended_with_its_pid_namespace() {
    case("a child that is left when the first process ends", || {
        let watch = Watch::by_default(&[])?;
        let script = "sleep 1000 & exit 5";
        let container = docker::shared()?.create(&[], &["/bin/sh", "-c", script])?;
        container.start_to_end()?.expect_code(5)?;
        let end = end(&watch, &container)?;
        equal("exit.code", end.u64("/exit/code")?, 5)?;
        let is_child = |event: &Event| {
            event.is("exit")
                && event.container_id() == Some(&container.id)
                && event.get("/exit/container_end") == Some(&false.into())
        };
        let child = watch.event("the child's end", is_child)?;
        let truths = [("/exit/cause/kind", "signal"), ("/exit/cause/via", "pid_namespace_end")];
        expect(&child, &truths)?;
        equal("sender", child.get("/exit/cause/sender"), None)?;
        watch.stop().map(drop)
    });
}

#[test]
fn by_a_low_level_runtime() {
    case("runc kill", || {
        let watch = Watch::by_default(&[])?;
        let container = oci::Container::start("runc", 64 * MIB, &["/bin/sleep", "1000"], None)?;
        run(Command::new(program("runc")?).args(["kill", &container.id, "KILL"]))?;
        container.wait()?;
        let end = watch.event("its end", |event| event.is_exit_of(container.pid))?;
        println!("  {}", end.str("/exit/cause/text")?);
        equal("container.id", end.container_id().context("no container")?, &*container.id)?;
        equal("code", end.u64("/exit/runtime_code")?, 137)?;
        expect(&end, &[("/exit/cause/sender/comm", "runc")])?;
        by_runtime(&end, true)?;
        watch.stop().map(drop)
    });
}
