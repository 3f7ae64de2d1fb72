//! Records of cgroups and processes that come and go are lost: they are counted, and a look at all
//! cgroups makes up for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::docker;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{patience, v1_mount, v2_mount};
use ctrace_tests::marked::{self, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

use crate::MIB;

/// Cgroups that come and go.
const CGROUPS: usize = 500;
/// Files in a watched directory: more than the kernel keeps for one inotify.
const FILES: usize = 20_000;

#[test]
fn of_cgroups() {
    case("a stopped ctrace with a small lifecycle ring: a walk makes up for the loss", || {
        let engine = docker::shared()?;
        let watch = Watch::processes(&["--lifecycle-ring-size", "4096"])?;
        let stopped = watch.stop_for_now()?;
        let mount = match v2_mount()? {
            Some(mount) => mount,
            None => v1_mount("pids")?.context("no cgroups")?,
        };
        let directory = mount.join(unique("lost"));
        for _ in 0..CGROUPS {
            fs::create_dir(&directory)?;
            fs::remove_dir(&directory)?;
        }
        // Their cgroups are among what is lost.
        let (docker_mark, runc_mark) = (unique("lost"), unique("lost"));
        let become_marked = |mark: &str| format!("{} {mark}", marked::PROGRAM);
        let (container, mut gate) = engine.start_gated(&[], &become_marked(&docker_mark))?;
        let (runc, mut runc_gate) =
            oci::Container::start_gated("runc", 32 * MIB, &become_marked(&runc_mark))?;
        stopped.go_on()?;
        let is_loss = |event: &Event| event.get("/lost/ring").is_some_and(|r| r == "lifecycle");
        let loss = watch.event("a lost line of the lifecycle ring", is_loss)?;
        println!("  {loss}");
        gate.open()?;
        let event = watch.event("docker's exec", |event| mark_of(event) == Some(&docker_mark))?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("container.name", event.container_name(), Some(container.name.as_str()))?;
        runc_gate.open()?;
        let event = watch.event("runc's exec", |event| mark_of(event) == Some(&runc_mark))?;
        equal("container.id", event.container_id(), Some(runc.id.as_str()))?;
        runc.wait()?;
        // And one that comes after all that.
        let name = unique("later");
        let command = marked::command(&name, 1);
        let id = engine.run_to_end(&name, &[], &command.each_ref().map(String::as_str))?;
        let event = watch.event("a later exec", |event| mark_of(event) == Some(&name))?;
        equal("container.id", event.container_id(), Some(id.as_str()))?;
        equal("container.name", event.container_name(), Some(name.as_str()))?;
        let ended = watch.stop()?;
        let lost = ended.events.iter().filter(|event| is_loss(event));
        let lost = lost.map(|event| event.lost(None)).sum::<Result<u64>>()?;
        println!("  lost: {lost}");
        let records = u64::try_from(CGROUPS)?;
        ensure!(lost >= records, "of {records} cgroups made and removed only {lost} records lost");
        ended.summary(&["lost", "lifecycle"]).map(drop)
    });
}

#[test]
fn of_metadata() {
    case("a stopped ctrace with more changes of files than inotify keeps", || {
        let limit: usize =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?.trim().parse()?;
        ensure!(2 * FILES > limit, "inotify keeps {limit} events: the test makes too few");
        // runc's directory of states is watched once it is there.
        let first = oci::Container::start("runc", 32 * MIB, &["/bin/true"], None)?;
        let watch = Watch::processes(&[])?;
        let stopped = watch.stop_for_now()?;
        for _ in 0..FILES {
            // Different names: the kernel merges what is the same twice.
            let directory = Path::new("/run/runc").join(unique("state"));
            fs::create_dir(&directory)?;
            fs::remove_dir(&directory)?;
        }
        let mark = unique("inotify");
        let then = format!("{} {mark}", marked::PROGRAM);
        let (container, mut gate) = oci::Container::start_gated("runc", 32 * MIB, &then)?;
        stopped.go_on()?;
        gate.open()?;
        let events = watch.events(patience(30), "runc's exec", |events| {
            events.iter().any(|event| mark_of(event) == Some(&mark))
        })?;
        let event = events.iter().find(|event| mark_of(event) == Some(&mark)).context("it")?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("container.runtime", event.str("/container/runtime")?, "runc")?;
        container.wait()?;
        drop(first);
        watch.stop().map(drop)
    });
}
