//! OOM kills in containers of docker and podman.

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::counters;
use ctrace_tests::engine::{Container, Engine, is_cgroup_of};
use ctrace_tests::event::Event;
use ctrace_tests::facts::patience;
use ctrace_tests::image::Image;
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oom_check::{
    Identity, Limit, both, check_counters, check_limit, check_victim, equal,
};
use ctrace_tests::watch::Watch;
use ctrace_tests::{docker, podman};

use crate::MIB;

const TAIL: &str = "/bin/tail /dev/zero";

#[test]
fn docker_container_older_than_ctrace() {
    case("docker: the container runs before ctrace", || gated(docker::shared()?, false));
}

#[test]
fn docker_container_younger_than_ctrace() {
    case("docker: ctrace runs before the container", || gated(docker::shared()?, true));
}

#[test]
fn docker_container_of_an_instant() {
    case("docker: run --rm that lives under a second", || instant(docker::shared()?));
}

#[test]
fn docker_container_that_survives_its_victim() {
    case("docker: a child is killed, the container lives on", || child(docker::shared()?));
}

#[test]
fn podman_container_older_than_ctrace() {
    case("podman: the container runs before ctrace", || gated(podman::shared()?, false));
}

#[test]
fn podman_container_younger_than_ctrace() {
    case("podman: ctrace runs before the container", || gated(podman::shared()?, true));
}

#[test]
fn podman_container_of_an_instant() {
    case("podman: run --rm that lives under a second", || instant(podman::shared()?));
}

#[test]
fn podman_container_that_survives_its_victim() {
    case("podman: a child is killed, the container lives on", || child(podman::shared()?));
}

/// The container's first process waits, becomes `tail /dev/zero`, and is the victim.
fn gated(engine: &Engine, ctrace_first: bool) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let early = ctrace_first.then(|| Watch::oom(&[])).transpose()?;
    let (container, mut gate) = engine.start_gated(&["--memory", "64m"], TAIL)?;
    let watch = early.map_or_else(|| Watch::oom(&[]), Ok)?;
    let identity = Identity::of(container.pid()?)?;
    ensure!(is_cgroup_of(&identity.cgroup, &container.id), "not in its cgroup: {identity:?}");
    gate.open()?;

    let (event, killed) = both(&watch, &mut log, identity.pid)?;
    equal("exit code", container.wait()?, 137)?;
    equal("process.comm", event.str("/process/comm")?, "tail")?;
    check_victim(&event, &killed)?;
    identity.check(&event)?;
    check_limit(&event, &log, Limit { bytes: 64 * MIB, path: &identity.cgroup })?;
    equal("oom.memory_events.oom_kill", event.u64("/oom/memory_events/oom_kill")?, 1)?;
    equal("oom.trigger.pid", event.u64("/oom/trigger/pid")?, u64::from(identity.pid))?;
    equal("oom.trigger.comm", event.str("/oom/trigger/comm")?, "tail")?;
    let trigger = event.str("/oom/trigger/container/id")?;
    equal("oom.trigger.container.id", trigger, container.id.as_str())?;
    check_container(&event, engine, &container)?;
    one_event(watch, identity.pid)
}

/// The shell goes on after its child was killed, so that the cgroup's files can be read.
fn child(engine: &Engine) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let watch = Watch::oom(&[])?;
    let then = format!("/bin/sh -c '{TAIL}; read again </gate/go'");
    let (container, mut gate) = engine.start_gated(&["--memory", "64m"], &then)?;
    let shell = Identity::of(container.pid()?)?;
    gate.open()?;
    let event = watch.event("the kill in the container", |event| is_in(event, &container))?;
    let pid = u32::try_from(event.u64("/process/pid")?)?;
    ensure!(pid != shell.pid, "the shell was killed in the place of its child");
    let killed = log.killed(pid, patience(20))?;
    check_victim(&event, &killed)?;
    equal("process.comm", event.str("/process/comm")?, "tail")?;
    equal("process.ppid", event.u64("/process/ppid")?, u64::from(shell.pid))?;
    equal("cgroup.id", event.u64("/cgroup/id")?, shell.cgroup_id)?;
    equal("namespaces.pid", event.u64("/namespaces/pid")?, shell.namespaces[0])?;
    check_limit(&event, &log, Limit { bytes: 64 * MIB, path: &shell.cgroup })?;
    check_counters(&event, counters(&shell.directory()?)?)?;
    check_container(&event, engine, &container)?;
    one_event(watch, pid)
}

/// The container is gone before anybody could look for it.
fn instant(engine: &Engine) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let watch = Watch::oom(&[])?;
    let container = engine.create(&["--rm", "--memory", "16m"], &["/bin/tail", "/dev/zero"])?;
    let ended = container.start_to_end()?.expect_code(137)?;
    println!("  {}: {}", ended.what, ended.status);
    let event = watch.event("the kill in the container", |event| is_in(event, &container))?;
    let pid = u32::try_from(event.u64("/process/pid")?)?;
    let killed = log.killed(pid, patience(20))?;
    check_victim(&event, &killed)?;
    equal("process.comm", event.str("/process/comm")?, "tail")?;
    equal("process.container_pid", event.u64("/process/container_pid")?, 1)?;
    let path = event.str("/cgroup/path")?;
    ensure!(is_cgroup_of(path, &container.id), "cgroup.path {path}");
    check_limit(&event, &log, Limit { bytes: 16 * MIB, path })?;
    check_container(&event, engine, &container)?;
    one_event(watch, pid)
}

fn is_in(event: &Event, container: &Container) -> bool {
    event.is("oom_kill") && event.str("/container/id").is_ok_and(|id| id == container.id)
}

fn check_container(event: &Event, engine: &Engine, container: &Container) -> Result<()> {
    equal("container.id", event.str("/container/id")?, container.id.as_str())?;
    equal("container.name", event.str("/container/name")?, container.name.as_str())?;
    equal("container.runtime", event.str("/container/runtime")?, engine.runtime)?;
    let image = event.str("/container/image")?;
    // podman prefixes images without a registry with `localhost/`.
    equal(
        "container.image",
        image.trim_start_matches("localhost/"),
        Image::shared()?.name.as_str(),
    )?;
    ensure!(!event.str("/container/via")?.is_empty(), "container.via is empty");
    Ok(())
}

/// Ends ctrace: there was one event of this victim, and nothing was lost.
fn one_event(watch: Watch, pid: u32) -> Result<()> {
    let ended = watch.stop()?;
    let kills = ended.events.iter().filter(|event| event.is_oom_kill_of(pid)).count();
    equal("events of this victim", kills, 1)?;
    equal("lost lines", ended.events.iter().filter(|event| event.is("lost")).count(), 0)?;
    ended.summary(&["oom_kill"]).map(drop)
}
