//! podman's ways to place a container, and its monitor.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, anyhow, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::command::finish;
use ctrace_tests::docker;
use ctrace_tests::engine::Engine;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{hybrid, patience, v1_mount, v2_mount};
use ctrace_tests::marked::{self, Tally, Truth, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::podman;
use ctrace_tests::process::cgroup;
use ctrace_tests::watch::Watch;

#[test]
fn without_cgroups() {
    case("podman --cgroups=disabled: known by its mounts or its lineage", || {
        let events = run_marked(&podman::with_crun()?, &["--cgroups=disabled"])?;
        for event in &events {
            let via = event.str("/attribution")?;
            ensure!(["mountinfo", "lineage", "namespace"].contains(&via), "via {via}: {event}");
        }
        Ok(())
    });
}

#[test]
fn a_container_that_left_its_cgroups() {
    case("podman: a container in the host's cgroups is known by its mounts", || {
        left_its_cgroups(podman::shared()?)
    });
    case("docker: a container in the host's cgroups is known by its mounts", || {
        left_its_cgroups(docker::shared()?)
    });
}

/// As with `--cgroups=disabled`, on every host: the container's only process is in the root.
fn left_its_cgroups(engine: &Engine) -> Result<()> {
    let mark = unique("left");
    let script = format!("{0} {mark}; {0} {mark}; read again </gate/go", marked::PROGRAM);
    let (container, mut gate) = engine.start_gated(&[], &format!("/bin/sh -c '{script}'"))?;
    let pid = container.pid()?;
    for mount in [v1_mount("pids")?, v2_mount()?].into_iter().flatten() {
        fs::write(mount.join("cgroup.procs"), pid.to_string())?;
    }
    // Too late to have seen it in its cgroups.
    let watch = Watch::processes(&[])?;
    gate.open()?;
    let events = watch.events(patience(10), "both marked execs", |events| {
        events.iter().filter(|event| mark_of(event) == Some(&mark)).count() == 2
    })?;
    let truth = Truth { id: container.id.clone(), name: Some(container.name.clone()) };
    let of_it = |event: &&Event| event.is_of(pid) || mark_of(event) == Some(&mark);
    let mut tally = Tally::default();
    for event in events.iter().filter(of_it) {
        ensure!(!event.str("/cgroup/path")?.contains(&container.id), "still in it: {event}");
        tally.add(event, &truth);
    }
    tally.check(3)?;
    watch.stop().map(drop)
}

#[test]
fn with_cgroups() {
    case("podman with its usual cgroups: conmon is nobody's container", || {
        run_marked(podman::shared()?, &[]).map(drop)
    });
}

/// Runs marked commands in a container; gives their execs.
fn run_marked(engine: &Engine, options: &[&str]) -> Result<Vec<Event>> {
    let watch = Watch::processes(&[])?;
    let name = unique("podman");
    let command = marked::command(&name, 3);
    let id = engine.run_to_end(&name, options, &command.each_ref().map(String::as_str))?;
    watch.fence()?;
    let mut events = watch.stop()?.events;
    conmon_is_outside(&events)?;
    let truths = BTreeMap::from([(name.clone(), Truth { id, name: Some(name.clone()) })]);
    Tally::of(&events, &truths).check(8)?;
    events.retain(|event| mark_of(event) == Some(&name));
    Ok(events)
}

/// No event of a monitor, which is there, is a container's.
fn conmon_is_outside(events: &[Event]) -> Result<()> {
    let is_conmon = |event: &&Event| event.str("/process/comm").is_ok_and(|comm| comm == "conmon");
    let vias: Vec<_> =
        events.iter().filter(is_conmon).map(|event| event.str("/attribution")).collect();
    println!("  conmon: {vias:?}");
    ensure!(!vias.is_empty(), "no event of conmon");
    match events.iter().filter(is_conmon).find(|event| event.get("/container").is_some()) {
        Some(event) => Err(anyhow!("conmon in a container: {event}")),
        None => Ok(()),
    }
}

#[test]
fn a_child_cgroup() {
    case("podman: a process in a child cgroup named `container`", || {
        let engine = podman::shared()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("child");
        let then = format!("{} {mark}", marked::PROGRAM);
        let (container, mut gate) = engine.start_gated(&[], &then)?;
        let pid = container.pid()?;
        let mut children = Vec::new();
        for (mount, controller) in [(v1_mount("pids")?, "pids"), (v2_mount()?, "")] {
            let Some(mount) = mount else { continue };
            let path = cgroup(pid, controller)?;
            if path.contains(&container.id) {
                let child = Cgroup::in_hierarchy(&mount, &format!("{path}/container"))?;
                child.take(pid)?;
                children.push(child);
            }
        }
        ensure!(!children.is_empty(), "in no cgroup of its own");
        gate.open()?;
        let event = watch.event("the marked exec", |event| mark_of(event) == Some(&mark))?;
        println!("  {event}");
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("container.name", event.container_name(), Some(container.name.as_str()))?;
        equal("container.runtime", event.str("/container/runtime")?, "podman")?;
        let path = event.str("/cgroup/path")?;
        ensure!(path.ends_with("/container"), "cgroup.path {path}");
        watch.stop().map(drop)
    });
}

#[test]
fn split_in_a_unit() {
    case("podman --cgroups=split in a service's cgroup", || {
        if hybrid()? {
            return Err(cannot("--cgroups=split is of cgroup v2"));
        }
        let engine = podman::shared()?;
        let mount = v2_mount()?.context("no v2")?;
        let unit = Cgroup::in_hierarchy(&mount, &(unique("split") + ".service"))?;
        let watch = Watch::processes(&[])?;
        let name = unique("podman");

        let container = engine.create_named(
            &name,
            &["--cgroups=split"],
            &marked::command(&name, 3).each_ref().map(String::as_str),
        )?;
        let start = engine.command(&["start", "--attach", &name]);
        let started = finish(&mut unit.enter(&start))?;
        if !started.status.success() {
            return Err(cannot(format!("podman refuses: {}", started.stderr.trim())));
        }
        watch.fence()?;
        let ended = watch.stop()?;
        conmon_is_outside(&ended.events)?;
        let truth = Truth { id: container.id.clone(), name: Some(name.clone()) };
        Tally::of(&ended.events, &BTreeMap::from([(name, truth)])).check(8)?;
        Ok(())
    });
}
