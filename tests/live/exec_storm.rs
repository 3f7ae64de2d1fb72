//! Many `docker exec` at a time into two containers.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use ctrace_tests::case::case;
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{kernel_at_least, rounds};
use ctrace_tests::marked::{self, Tally, Truth};
use ctrace_tests::names::unique;
use ctrace_tests::parallel::parallel;
use ctrace_tests::process::namespace;
use ctrace_tests::watch::Watch;

const EXECS: usize = 40;
const WIDTH: usize = 8;

#[test]
fn into_older_containers() {
    case("a storm of docker exec, containers older than ctrace", || storm(false, false));
}

#[test]
fn into_younger_containers() {
    case("a storm of docker exec, containers younger than ctrace", || storm(true, false));
}

/// The one's `/etc/hostname`, `hosts` and `resolv.conf` are mounted in the other.
#[test]
fn into_containers_with_one_network() {
    case("a storm of docker exec, one container in the other's network", || storm(false, true));
}

fn storm(ctrace_first: bool, is_network_shared: bool) -> Result<()> {
    let engine = docker::shared()?;
    let early = ctrace_first.then(|| Watch::processes(&[])).transpose()?;
    let (one, _gate) = engine.start_gated(&[], "/bin/true")?;
    let sharing = engine.with_network(&format!("container:{}", one.name));
    let engine_of_other = if is_network_shared { &sharing } else { engine };
    let (other, _other_gate) = engine_of_other.start_gated(&[], "/bin/true")?;
    let containers = [one, other];
    let numbered = kernel_at_least(6, 18)?;
    let mounts = containers
        .each_ref()
        .map(|container| -> Result<u64> { namespace(container.pid()?, "mnt") });
    let watch = early.map_or_else(|| Watch::processes(&[]), Ok)?;
    let truths = parallel(rounds(EXECS), WIDTH, |index| {
        let container = &containers[index % 2];
        let mark = unique("storm");
        container.exec(&[], &[marked::PROGRAM, &mark])?;
        let truth = Truth { id: container.id.clone(), name: Some(container.name.clone()) };
        Ok((mark, truth))
    })?;
    let truths: BTreeMap<_, _> = truths.into_iter().collect();
    watch.fence()?;
    let ended = watch.stop()?;
    Tally::of(&ended.events, &truths).check(2 * rounds(EXECS))?;
    // Inodes are not used again while these containers live.
    for (container, mount) in containers.iter().zip(mounts) {
        if numbered {
            in_its_mounts(&ended.events, container, mount?)?;
        }
    }
    let inits = ended.events.iter().filter(|event| is_runc_init(event));
    let mut by_place: BTreeMap<String, usize> = BTreeMap::new();
    for event in inits {
        let who = containers.iter().position(|c| event.container_id() == Some(&c.id));
        let text = |pointer: &str| event.str(pointer).unwrap_or("-").to_owned();
        let place = format!(
            "{} container {who:?}, {}, phase {}",
            text("/type"),
            text("/attribution"),
            text("/container/phase")
        );
        *by_place.entry(place).or_default() += 1;
    }
    println!("  runc init: {by_place:#?}");
    let phased = ended.events.iter().filter(|event| event.get("/container/phase").is_some());
    let phased = phased.count();
    println!("  events with a phase: {phased}");
    ensure!(phased > 0, "no event of a process on its way into a container");
    ended.summary(&["lost"]).map(drop)
}

/// Every event in the container's mount namespace is the container's. Only where the kernel numbers
/// namespaces: an inode alone proves nothing.
fn in_its_mounts(events: &[Event], container: &Container, mount: u64) -> Result<()> {
    let inside = || events.iter().filter(|event| event.namespace("mnt") == Some(mount));
    let phases = |phase: &str| {
        inside().filter(|event| event.str("/container/phase").is_ok_and(|p| p == phase)).count()
    };
    println!(
        "  in the mounts of {}: {} events, joining {}, runtime_init {}",
        container.name,
        inside().count(),
        phases("joining"),
        phases("runtime_init")
    );
    if let Some(stray) = inside().find(|event| event.container_id() != Some(&container.id)) {
        bail!("in the mounts of {}, but not in it: {stray}", container.name);
    }
    Ok(())
}

fn is_runc_init(event: &Event) -> bool {
    event.str("/process/comm").is_ok_and(|comm| comm.starts_with("runc:[") || comm == "runc:")
        || event.array("/exec/args").is_ok_and(|args| args.len() == 2 && args[1] == "init")
}
