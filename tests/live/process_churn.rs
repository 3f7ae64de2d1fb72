//! Short-lived containers, many at a time: every exec and exit is in its container.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::docker;
use ctrace_tests::engine::Engine;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{program, rounds};
use ctrace_tests::image::Image;
use ctrace_tests::marked::{self, Tally, Truth, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::parallel::parallel;
use ctrace_tests::watch::{Ended, Watch};

use crate::MIB;

/// Containers at a time.
const WIDTH: usize = 10;
/// Marked commands of each container, beside the shell that runs them.
const COMMANDS: usize = 2;
/// Events of the marked processes of a container: exec and exit.
const EVENTS: usize = 2 * (COMMANDS + 1);
/// How long a collector is held back.
const STALL: Duration = Duration::from_millis(150);

/// Containers of a run: `CTRACE_CHURN`, else few enough for every day.
fn containers() -> Result<usize> {
    match env::var("CTRACE_CHURN") {
        Ok(count) => count.parse().context("CTRACE_CHURN is no number"),
        Err(_) => Ok(rounds(100)),
    }
}

/// Runs a container that is removed at its end; its name is its mark.
fn run_one(engine: &Engine) -> Result<(String, Truth)> {
    let name = unique("churn");
    let command = marked::command(&name, COMMANDS);
    let id = engine.run_to_end(&name, &[], &command.each_ref().map(String::as_str))?;
    Ok((name.clone(), Truth { id, name: Some(name) }))
}

#[test]
fn docker_run() {
    case("churn of docker run --rm: every event has its container", || churn(false));
}

#[test]
fn docker_run_with_a_stalled_collector() {
    case("churn of docker run --rm, ctrace stopped for 150 ms at times", || churn(true));
}

fn churn(is_stalled: bool) -> Result<()> {
    let (engine, count) = (docker::shared()?, containers()?);
    let watch = Watch::processes(&[])?;
    let began = Instant::now();
    let runs = parallel(count, WIDTH, |index| {
        if is_stalled && index % WIDTH == WIDTH / 2 {
            watch.stall(STALL)?;
        }
        run_one(engine)
    })?;
    println!("  {count} containers in {:?}", began.elapsed());
    let truths: BTreeMap<String, Truth> = runs.into_iter().collect();
    equal("containers", truths.len(), count)?;
    let ended = fenced(watch)?;
    Tally::of(&ended.events, &truths).check(count * EVENTS)?;
    print_latency(&ended.events, &truths)?;
    nothing_lost(&ended)
}

fn fenced(watch: Watch) -> Result<Ended> {
    watch.fence()?;
    watch.stop()
}

fn nothing_lost(ended: &Ended) -> Result<()> {
    ended.summary(&["lost"])?;
    let lost = ended.events.iter().map(|event| event.lost(None)).sum::<Result<u64>>()?;
    equal("lost", lost, 0)
}

fn print_latency(events: &[Event], truths: &BTreeMap<String, Truth>) -> Result<()> {
    let marked =
        events.iter().filter(|event| mark_of(event).is_some_and(|mark| truths.contains_key(mark)));
    let mut latencies = marked.map(Event::latency).collect::<Result<Vec<_>>>()?;
    latencies.sort();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100);
    println!("  latency: median {:?}, 99 % {:?}, longest {:?}", at(50), at(99), latencies.last());
    Ok(())
}

#[test]
fn ctrace_starts_in_the_middle() {
    case("ctrace starts in the middle of churn: no container is missed", || {
        let engine = docker::shared()?;
        let watch: OnceLock<Watch> = OnceLock::new();
        let count = containers()?.min(60);
        let runs = parallel(count, WIDTH, |index| {
            if index == count / 3
                && let Err(second) = watch.set(Watch::processes(&[])?)
            {
                drop(second);
            }
            let is_after = watch.get().is_some();
            Ok((run_one(engine)?, is_after))
        })?;
        let watch = watch.into_inner().context("no ctrace was started")?;
        let ended = fenced(watch)?;
        let after: Vec<_> = runs.iter().filter(|(_, is_after)| *is_after).collect();
        let during = runs.len() - after.len();
        println!("  containers before or during the start {during}, after it {}", after.len());
        let truths = |runs: &mut dyn Iterator<Item = &(String, Truth)>| runs.cloned().collect();
        println!(" of those started after it:");
        let later: BTreeMap<_, _> = truths(&mut after.iter().map(|(run, _)| run));
        Tally::of(&ended.events, &later).check(later.len() * EVENTS)?;
        println!(" of all that was seen:");
        let all: BTreeMap<_, _> = truths(&mut runs.iter().map(|(run, _)| run));
        Tally::of(&ended.events, &all).check(later.len() * EVENTS)?;
        nothing_lost(&ended)
    });
}

#[test]
fn the_same_mount_namespace_inode() {
    case("successive containers with one mount namespace inode: events stay apart", || {
        let engine = docker::shared()?;
        let watch = Watch::processes(&[])?;
        let mut created = Vec::new();
        for _ in 0..rounds(10) {
            let mark = unique("inode");
            let command = marked::command(&mark, COMMANDS);
            let command = command.each_ref().map(String::as_str);
            created.push((mark.clone(), engine.create_named(&mark, &[], &command)?));
        }
        // All events are read after the last of them has gone.
        let stopped = watch.stop_for_now()?;
        for (_, container) in &created {
            container.start_to_end()?.expect_code(0)?;
        }
        stopped.go_on()?;
        let truths = created.iter().map(|(mark, container)| {
            (mark.clone(), Truth { id: container.id.clone(), name: Some(mark.clone()) })
        });
        let truths: BTreeMap<String, Truth> = truths.collect();
        let ended = fenced(watch)?;
        Tally::of(&ended.events, &truths).check(truths.len() * EVENTS)?;
        reused(&ended.events, truths.keys())?;
        nothing_lost(&ended)
    });
}

#[test]
fn the_same_mount_namespace_inode_of_runc() {
    case("successive runc containers with one mount namespace inode", || {
        program("runc")?;
        let watch = Watch::processes(&[])?;
        let mut truths = BTreeMap::new();
        for _ in 0..rounds(20) {
            let mark = unique("inode");
            let command = marked::command(&mark, COMMANDS);
            let container = oci::Container::start("runc", 32 * MIB, &command, None)?;
            container.wait()?;
            truths.insert(mark, Truth { id: container.id.clone(), name: None });
        }
        let ended = fenced(watch)?;
        Tally::of(&ended.events, &truths).check(truths.len() * EVENTS)?;
        reused(&ended.events, truths.keys())?;
        nothing_lost(&ended)
    });
}

/// Fails unless several of the containers had the same inode; those have different `mnt_id`, where
/// the kernel has one.
fn reused<'a>(events: &[Event], marks: impl Iterator<Item = &'a String>) -> Result<()> {
    let marks: BTreeSet<&str> = marks.map(String::as_str).collect();
    let mut by_inode: BTreeMap<u64, BTreeMap<&str, Option<u64>>> = BTreeMap::new();
    for event in events {
        if let Some(mark) = mark_of(event).filter(|mark| marks.contains(mark)) {
            let inode = event.namespace("mnt").context("an event without a namespace")?;
            by_inode.entry(inode).or_default().insert(mark, event.namespace("mnt_id"));
        }
    }
    println!("  containers {}, mount namespace inodes {}", marks.len(), by_inode.len());
    if by_inode.len() == marks.len() {
        return Err(cannot("this kernel did not give an inode twice"));
    }
    for (inode, containers) in &by_inode {
        let ids: BTreeSet<u64> = containers.values().copied().flatten().collect();
        let known = containers.values().flatten().count();
        ensure!(ids.len() == known, "inode {inode}: {containers:?} share a mnt_id");
    }
    Ok(())
}

/// The image's name is the same for all containers of the tests.
#[test]
fn image_of_a_short_lived_container() {
    case("a container of an instant: its image is in its first event", || {
        let engine = docker::shared()?;
        let watch = Watch::processes(&[])?;
        let (mark, truth) = run_one(engine)?;
        let event = watch
            .event("its first command", |event| marked::mark_of_shell(event) == Some(&mark))?;
        equal("container.id", event.container_id(), Some(truth.id.as_str()))?;
        equal("container.image", event.str("/container/image")?, Image::shared()?.name.as_str())?;
        equal("container.runtime", event.str("/container/runtime")?, "docker")?;
        watch.stop().map(drop)
    });
}
