//! The engine's daemons stopped and killed: attribution needs none of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::docker::Daemon;
use ctrace_tests::event::Event;
use ctrace_tests::facts::patience;
use ctrace_tests::marked::{self, Tally, Truth, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::Stopped;
use ctrace_tests::watch::Watch;

use crate::MIB;

/// Execs of each container to look at in each state of the daemons.
const ENOUGH: usize = 15;

#[test]
fn stopped_and_killed() {
    case("docker's daemons stopped, then killed: containers stay known", || {
        let (mut daemon, engine) = Daemon::start(&[])?;
        let mut truths = BTreeMap::new();
        let mut containers = Vec::new();
        for _ in 0..2 {
            let mark = unique("daemons");
            let command = marked::endless(&mark);
            let container = engine.start(&[], &command.each_ref().map(String::as_str))?;
            let (id, name) = (container.id.clone(), Some(container.name.clone()));
            truths.insert(mark, Truth { id, name });
            containers.push(container);
        }
        let watch = Watch::processes(&[])?;
        let alive = look("daemons alive", &watch, &truths)?;

        let pids = daemon.pids()?;
        equal("daemons", pids.len(), 2)?;
        let stopped = pids.into_iter().map(Stopped::new).collect::<Result<Vec<_>>>()?;
        let of_runc = start_runc(&watch)?;
        let while_stopped = look("daemons stopped", &watch, &truths)?;
        for stopped in stopped {
            stopped.go_on()?;
        }

        // Dropped before the containers: a daemon has to be there to remove them.
        let killed = daemon.kill()?;
        let another = start_runc(&watch)?;
        let while_dead = look("daemons killed", &watch, &truths)?;
        let slack = patience(1) / 10;
        for median in [while_stopped, while_dead] {
            ensure!(median < alive * 3 + slack, "median latency {median:?}, before {alive:?}");
        }
        watch.fence()?;
        let ended = watch.stop()?;
        Tally::of(&ended.events, &truths).check(truths.len() * ENOUGH * 3)?;
        drop((of_runc, another));
        drop(killed);
        drop(containers);
        ended.summary(&["lost"]).map(drop)
    });
}

/// Waits for enough execs of each container from now on; the median of their latencies.
fn look(what: &str, watch: &Watch, truths: &BTreeMap<String, Truth>) -> Result<Duration> {
    let from = watch.seen();
    let of = |events: &[Event], mark: &str| {
        events[from..].iter().filter(|event| mark_of(event) == Some(mark)).count()
    };
    let events = watch.events(patience(20), what, |events| {
        truths.keys().all(|mark| of(events, mark) >= ENOUGH)
    })?;
    println!(" {what}:");
    Tally::of(&events[from..], truths).check(truths.len() * ENOUGH)?;
    let marked = events[from..]
        .iter()
        .filter(|event| mark_of(event).is_some_and(|mark| truths.contains_key(mark)));
    let mut latencies = marked.map(Event::latency).collect::<Result<Vec<_>>>()?;
    latencies.sort();
    let median = latencies[latencies.len() / 2];
    println!("  latency: median {median:?}, longest {:?}", latencies.last());
    Ok(median)
}

/// Runs a container without any daemon and holds its events against it.
fn start_runc(watch: &Watch) -> Result<oci::Container> {
    let mark = unique("direct");
    let command = marked::command(&mark, 3);
    let container = oci::Container::start("runc", 32 * MIB, &command, None)?;
    container.wait()?;
    watch.fence()?;
    let events = watch.events(patience(10), "its execs", |events| {
        events.iter().filter(|event| mark_of(event) == Some(&mark)).count() >= 3
    })?;
    println!(" runc without a daemon:");
    let truth = Truth { id: container.id.clone(), name: None };
    Tally::of(&events, &BTreeMap::from([(mark, truth)])).check(4)?;
    Ok(container)
}
