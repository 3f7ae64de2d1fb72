//! docker's own options: a parent for cgroups, a daemon younger than ctrace, user namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Everywhere;
use ctrace_tests::docker::{self, Daemon};
use ctrace_tests::engine::Engine;
use ctrace_tests::event::Event;
use ctrace_tests::facts::patience;
use ctrace_tests::marked::{self, Tally, Truth, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::watch::Watch;

fn run_marked(watch: Watch, engine: &Engine, options: &[&str]) -> Result<Vec<Event>> {
    let name = unique("options");
    let command = marked::command(&name, 3);
    let id = engine.run_to_end(&name, options, &command.each_ref().map(String::as_str))?;
    watch.fence()?;
    let mut events = watch.stop()?.events;
    let truths = BTreeMap::from([(name.clone(), Truth { id, name: Some(name.clone()) })]);
    Tally::of(&events, &truths).check(8)?;
    events.retain(|event| mark_of(event) == Some(&name));
    Ok(events)
}

#[test]
fn another_parent() {
    case("docker run --cgroup-parent: the container is known", || {
        let engine = docker::shared()?;
        let parent = Everywhere::new("parent");
        let option = format!("--cgroup-parent=/{}/deep", parent.name);
        for event in run_marked(Watch::processes(&[])?, engine, &[&option])? {
            let path = event.str("/cgroup/path")?;
            ensure!(path.starts_with(&format!("/{}/deep/", parent.name)), "cgroup.path {path}");
        }
        Ok(())
    });
}

#[test]
fn a_daemon_younger_than_ctrace() {
    case("a dockerd with directories of its own that starts after ctrace", || {
        let watch = Watch::processes(&[])?;
        let (_daemon, engine) = Daemon::start(&[])?;
        // ctrace finds out where the names are because there is a container without one.
        let began = Instant::now();
        for number in 1.. {
            let name = unique("young");
            let command = marked::command(&name, 1);
            let id = engine.run_to_end(&name, &[], &command.each_ref().map(String::as_str))?;
            let event = watch.event("its exec", |event| mark_of(event) == Some(&name))?;
            ensure!(event.container_id() == Some(&id), "{id}: {event}");
            if event.container_name() == Some(&name) {
                println!("  named since container {number}, after {:?}", began.elapsed());
                break;
            }
            ensure!(began.elapsed() < patience(10), "{number} containers without a name: {event}");
        }
        run_marked(watch, &engine, &[]).map(drop)
    });
}

#[test]
fn user_namespaces() {
    case("docker with user namespaces: the container is known", || {
        let subordinate = fs::read_to_string("/etc/subuid").unwrap_or_default();
        if !subordinate.lines().any(|line| line.starts_with("dockremap:")) {
            return Err(cannot("no dockremap in /etc/subuid, which docker would have to add"));
        }
        let (_daemon, engine) = Daemon::start(&["--userns-remap=default"])?;
        for event in run_marked(Watch::processes(&[])?, &engine, &[])? {
            let uid = event.u64("/process/uid")?;
            ensure!(uid != 0, "root of the container is root of the host");
        }
        Ok(())
    });
}
