//! Filters and signals: sender or victim.

use std::process::Command;

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::docker;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

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
            equal("sender", sent.u64("/signal/sender/pid")?, shell.id().into())?;
            let exit = watch.event("the end", |event| event.is_exit_of(pid))?;
            equal("sender", exit.u64("/exit/cause/sender/pid")?, shell.id().into())?;
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
                equal("sender", sent.u64("/signal/sender/pid")?, sender_pid.into())?;
                let id = sent.str("/signal/sender/container/id")?;
                equal("its container", id, sender.id.as_str())?;
                equal("the victim's container", sent.container_id(), None)?;
                watch.stop()?;
            }
            Ok(())
        },
    );
}
