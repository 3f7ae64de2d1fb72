//! Filters and deaths: a signal is its victim's and its sender's, an OOM kill its victim's alone.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::docker;
use ctrace_tests::facts::patience;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{memory_cgroup, memory_cgroup_directory};
use ctrace_tests::watch::Watch;

use crate::MIB;

#[test]
fn a_hosts_kill_is_the_victims() {
    case("--container of the victim's: a host's kill -9 is seen, with its sender", || {
        let engine = docker::shared()?;
        let container = engine.start(&[], &["/bin/sleep", "1000"])?;
        let other = engine.start(&[], &["/bin/sleep", "1000"])?;
        let pid = container.pid()?;
        let watch = Watch::by_default(&["--container", &container.name])?;
        let by_pid = Watch::by_default(&["--pid", &pid.to_string()])?;
        let kill =
            |pid: u32| Command::new("/bin/sh").args(["-c", &format!("kill -9 {pid}")]).spawn();
        ensure!(kill(other.pid()?)?.wait()?.success(), "the shell could not kill the other");
        let mut shell = kill(pid)?;
        ensure!(shell.wait()?.success(), "the shell could not kill it");
        for watch in [watch, by_pid] {
            let sent = watch.event("the signal", |event| event.is_signal_to(pid))?;
            equal("sender", sent.u64("/signal/sender/pid")?, u64::from(shell.id()))?;
            let exit = watch.event("the end", |event| event.is_exit_of(pid))?;
            equal("sender", exit.u64("/exit/cause/sender/pid")?, u64::from(shell.id()))?;
            let ended = watch.stop()?;
            let others = ended.events.iter().filter(|event| !event.is_of(pid));
            equal("events of others", others.count(), 0)?;
        }
        Ok(())
    });
}

#[test]
fn a_containers_kill_is_its_own_as_well() {
    case(
        "--container and --pid of the sender's: its kill of a process of the host is seen",
        || {
            let engine = docker::shared()?;
            let mut victim = Command::new("sleep").arg("1000").spawn()?;
            let pid = victim.id();
            let script = format!("kill -9 {pid}");
            let (sender, mut gate) =
                engine.start_gated(&["--pid=host"], &format!("/bin/{script}"))?;
            let sender_pid = sender.pid()?;
            let watch = Watch::by_default(&["--container", &sender.name])?;
            let by_pid = Watch::by_default(&["--pid", &sender_pid.to_string()])?;
            gate.open()?;
            victim.wait()?;
            for watch in [watch, by_pid] {
                let sent = watch.event("the signal", |event| event.is_signal_to(pid))?;
                equal("sender", sent.u64("/signal/sender/pid")?, u64::from(sender_pid))?;
                let id = sent.str("/signal/sender/container/id")?;
                equal("its container", id, sender.id.as_str())?;
                equal("the victim's container", sent.container_id(), None)?;
                watch.stop()?;
            }
            Ok(())
        },
    );
}

/// Bytes that the victim holds.
const HELD: u64 = 40 * MIB;

#[test]
fn an_oom_kill_is_its_victims() {
    case(
        "an OOM kill whose trigger is in another container: the victim's, not the trigger's",
        || {
            let engine = docker::shared()?;
            let parent = Cgroup::new("both")?.limit(64 * MIB)?;
            let below = format!("--cgroup-parent={}", parent.path_text());
            // Started first: once the victim holds its memory, a runtime is too large for the rest.
            let (trigger, mut gate) =
                engine.start_gated(&[&below], &format!("tail -c {HELD} /dev/zero"))?;
            let chosen = [below.as_str(), "--oom-score-adj=1000"];
            let hold = format!("(head -c {HELD} /dev/zero; sleep 1000) | tail -c {HELD}");
            let victim = engine.start(&chosen, &["/bin/sh", "-c", &hold])?;
            let cgroup = memory_cgroup(victim.pid()?)?;
            wait_held(&cgroup)?;
            let of_victim = Watch::by_default(&["--container", &victim.name])?;
            let of_trigger = Watch::by_default(&["--container", &trigger.name])?;
            let trigger_pid = trigger.pid()?;
            gate.open()?;
            let kill = of_victim.event("the OOM kill", |event| event.is("oom_kill"))?;
            equal("the victim's container", kill.container_id(), Some(victim.id.as_str()))?;
            equal("the trigger", kill.u64("/oom/trigger/pid")?, u64::from(trigger_pid))?;
            let other = kill.str("/oom/trigger/container/id")?;
            equal("the trigger's container", other, trigger.id.as_str())?;
            // All that comes after the kill ends with this.
            trigger.kill()?;
            of_trigger.event("the trigger's end", |event| event.is_exit_of(trigger_pid))?;
            let ended = of_trigger.stop()?;
            let is_other = |event: &&ctrace_tests::event::Event| {
                event.is("oom_kill") && event.container_id() != Some(&trigger.id)
            };
            equal(
                "the victim's at the trigger's",
                ended.events.iter().filter(is_other).count(),
                0,
            )?;
            of_victim.stop().map(drop)
        },
    );
}

/// Waits until a memory cgroup holds what its process is to hold.
fn wait_held(path: &str) -> Result<()> {
    let directory = memory_cgroup_directory(path)?;
    let deadline = Instant::now() + patience(20);
    loop {
        let read = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let usage = read("memory.usage_in_bytes").or_else(|| read("memory.current"));
        if usage.and_then(|usage| usage.trim().parse().ok()).is_some_and(|now: u64| now >= HELD) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{path} does not get to {HELD} bytes");
        thread::sleep(Duration::from_millis(20));
    }
}
