//! Many kills: none lost, none given to another cgroup; and losses that are forced are counted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{oom_kills, patience};
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, signal};
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::Watch;

use crate::MIB;

/// What one short-lived cgroup was.
struct Truth {
    cgroup_id: u64,
    path: String,
    kills: u64,
}

/// One OOM kill in a cgroup that is gone afterwards.
fn kill_one() -> Result<(u32, Truth)> {
    let cgroup = Cgroup::new("churn")?.limit(4 * MIB)?;
    let victim = Plan::new("ct-churn").spawn(Some(&cgroup))?;
    let pid = victim.pid();
    let (cgroup_id, path) = (cgroup.id()?, cgroup.path_text());
    victim.eat_until_killed()?;
    let kills = cgroup.counters()?.oom_kill;
    Ok((pid, Truth { cgroup_id, path, kills }))
}

#[test]
fn two_hundred_kills_in_a_row() {
    case("200 kills in cgroups that are removed at once", || {
        let watch = Watch::oom(&[])?;
        let truth = (0..200).map(|_| kill_one()).collect::<Result<BTreeMap<_, _>>>()?;
        equal("victims", truth.len(), 200)?;
        let mine = |event: &Event| truth.keys().any(|pid| event.is_oom_kill_of(*pid));
        let events = watch.events(patience(20), "all events", |events| {
            events.iter().filter(|event| mine(event)).count() >= truth.len()
        })?;
        let kills: u64 = truth.values().map(|cgroup| cgroup.kills).sum();
        let mut seen = 0u64;
        for event in events.iter().filter(|event| mine(event)) {
            let pid = u32::try_from(event.u64("/process/pid")?)?;
            let Truth { cgroup_id, path, .. } = &truth[&pid];
            let (id, shown) = (event.u64("/cgroup/id")?, event.str("/cgroup/path")?);
            ensure!(id == *cgroup_id, "{pid}: cgroup.id {id}, the inode is {cgroup_id}");
            ensure!(shown == path, "{pid}: cgroup.path {shown}, not {path}");
            let oom_cgroup = event.str("/oom/oom_cgroup")?;
            ensure!(oom_cgroup == path, "{pid}: oom.oom_cgroup {oom_cgroup}, not {path}");
            let limit = event.u64("/oom/limit_bytes")?;
            ensure!(limit == 4 * MIB, "{pid}: oom.limit_bytes {limit}");
            seen += 1;
        }
        println!(
            "  cgroup.id, cgroup.path, oom.oom_cgroup, oom.limit_bytes: right in {seen} events"
        );
        equal("events and the cgroups' own counts", seen, kills)?;
        let ended = watch.stop()?;
        let lost = ended.events.iter().map(|event| event.lost(None)).sum::<Result<u64>>()?;
        equal("lost", lost, 0)?;
        ended.summary(&["oom_kill"]).map(drop)
    });
}

#[test]
fn losses_are_counted() {
    case("a stopped ctrace with a small ring: events and losses add up", || {
        let watch = Watch::oom(&["--rare-ring-size", "4096"])?;
        let before = oom_kills()?;
        signal(watch.pid(), Signal::Stop)?;
        let truth = (0..100).map(|_| kill_one()).collect::<Result<Vec<_>>>();
        signal(watch.pid(), Signal::Cont)?;
        let mine: u64 = truth?.iter().map(|(_, cgroup)| cgroup.kills).sum();
        equal("kills that the cgroups counted", mine, 100)?;
        // A kill elsewhere on this machine is an event or a loss as well.
        let kills = oom_kills()? - before;
        ensure!(kills >= mine, "the machine counted {kills} kills");
        let total = |events: &[Event]| -> Result<(u64, u64)> {
            let seen = events.iter().filter(|event| event.is("oom_kill")).count();
            Ok((
                u64::try_from(seen)?,
                events.iter().map(|event| event.lost(Some("oom_kill"))).sum::<Result<u64>>()?,
            ))
        };
        let events = watch.events(patience(10), "events and losses of all kills", |events| {
            total(events).is_ok_and(|(seen, lost)| seen + lost >= kills)
        })?;
        let (seen, lost) = total(&events)?;
        println!("  events {seen}, lost {lost}");
        equal("events + lost and the machine's own count", seen + lost, kills)?;
        ensure!(lost > 0, "a ring of 4096 bytes held {seen} events: the test forced no loss");
        let place = events.iter().position(|event| event.is("lost"));
        ensure!(place.is_some(), "no lost line in the stream");
        // After the gap the stream goes on.
        let (pid, _) = kill_one()?;
        watch.oom_kill(pid)?;
        let ended = watch.stop()?;
        let after = total(&ended.events)?;
        equal("lost at the end", after.1, lost)?;
        let summary = ended.summary(&["lost"])?;
        let (_, losses) = summary.split_once("lost:").context("no `lost:` in the summary")?;
        let told = losses.split(',').any(|loss| {
            loss.split_whitespace().take(2).eq([lost.to_string().as_str(), "oom_kill"])
        });
        equal("the summary says how many oom_kill were lost", told, true)
    });
}
