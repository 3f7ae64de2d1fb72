//! OOM kills in cgroups without a container: limits at several levels, several victims, a trigger
//! that survives.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::facts::patience;
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oom_check::{Identity, Limit, both, check_counters, check_levels, check_limit};
use ctrace_tests::oom_check::{check_victim, equal};
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::Watch;

use crate::MIB;

#[test]
fn every_figure_of_the_victim() {
    case("bare cgroup: every figure of a victim with all kinds of memory", || {
        let mut log = KernelLog::mark()?;
        let watch = Watch::oom(&[])?;
        let cgroup = Cgroup::new("figures")?.limit(48 * MIB)?;
        let plan = Plan::new("ct-figures").shmem(5 << 20).file("/bin/busybox")?;
        let victim = plan.uid(1234).oom_score_adj(17).spawn(Some(&cgroup))?;
        let identity = Identity::of(victim.pid())?;
        victim.eat_until_killed()?;
        let (event, killed) = both(&watch, &mut log, identity.pid)?;
        ensure!(killed.shmem_rss_kib > 0 && killed.file_rss_kib > 0, "all kinds: {killed:?}");
        check_victim(&event, &killed)?;
        identity.check(&event)?;
        check_limit(&event, &log, Limit { bytes: 48 * MIB, path: &cgroup.path_text() })?;
        check_counters(&event, cgroup.counters()?)?;
        check_levels(&event, &[(&cgroup.path_text(), Some(48 * MIB))])?;
        equal("oom.trigger.pid", event.u64("/oom/trigger/pid")?, u64::from(identity.pid))?;
        equal("container", event.get("/container"), None::<&serde_json::Value>)?;
        watch.stop().map(drop)
    });
}

#[test]
fn limit_above_an_unlimited_leaf() {
    case("nested: the parent's limit, a leaf without one", || nested(None));
}

#[test]
fn limit_above_a_larger_one() {
    case("nested: the parent's limit, a leaf with a larger one", || nested(Some(128 * MIB)));
}

fn nested(leaf_limit: Option<u64>) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let watch = Watch::oom(&[])?;
    let parent = Cgroup::new("parent")?.limit(64 * MIB)?;
    let middle = parent.child("middle")?;
    let mut leaf = middle.child("leaf")?;
    if let Some(bytes) = leaf_limit {
        leaf = leaf.limit(bytes)?;
    }
    let victim = Plan::new("ct-nested").spawn(Some(&leaf))?;
    let identity = Identity::of(victim.pid())?;
    victim.eat_until_killed()?;
    let (event, killed) = both(&watch, &mut log, identity.pid)?;
    check_victim(&event, &killed)?;
    identity.check(&event)?;
    equal("cgroup.id", event.u64("/cgroup/id")?, leaf.id()?)?;
    check_limit(&event, &log, Limit { bytes: 64 * MIB, path: &parent.path_text() })?;
    let (leaf_path, middle_path, parent_path) =
        (leaf.path_text(), middle.path_text(), parent.path_text());
    check_levels(
        &event,
        &[(&leaf_path, leaf_limit), (&middle_path, None), (&parent_path, Some(64 * MIB))],
    )?;
    for level in event.array("/oom/levels")?.iter().take(3) {
        let usage = level["usage_bytes"].as_u64().unwrap_or(0);
        println!("  usage of {}: {usage}", level["path"]);
        ensure!(usage >= 60 * MIB, "all of the parent's memory is in the leaf: {level}");
    }
    watch.stop().map(drop)
}

#[test]
fn trigger_that_is_not_the_victim() {
    case("the trigger is another process than the victim", || {
        let mut log = KernelLog::mark()?;
        let watch = Watch::oom(&[])?;
        let cgroup = Cgroup::new("trigger")?.limit(64 * MIB)?;
        let victim = Plan::new("ct-victim").anon(40 << 20).oom_score_adj(900);
        let victim = victim.spawn(Some(&cgroup))?;
        let mut trigger = Plan::new("ct-trigger").spawn(Some(&cgroup))?;
        let identity = Identity::of(victim.pid())?;
        trigger.eat(40 * MIB)?;
        victim.killed()?;
        let (event, killed) = both(&watch, &mut log, identity.pid)?;
        equal("process.comm", event.str("/process/comm")?, "ct-victim")?;
        check_victim(&event, &killed)?;
        identity.check(&event)?;
        equal("oom.trigger.pid", event.u64("/oom/trigger/pid")?, u64::from(trigger.pid()))?;
        equal("oom.trigger.comm", event.str("/oom/trigger/comm")?, "ct-trigger")?;
        check_limit(&event, &log, Limit { bytes: 64 * MIB, path: &cgroup.path_text() })?;
        // With the victim gone there is room; yet a kernel that did not wait for that kills again.
        let survived = trigger.full().is_ok();
        let killed = log.kills()?.iter().any(|killed| killed.pid == trigger.pid());
        equal("the trigger was killed as well (kernel log)", killed, !survived)?;
        if killed {
            watch.oom_kill(trigger.pid())?;
        }
        let ended = watch.stop()?;
        let of_trigger = ended.events.iter().any(|event| event.is_oom_kill_of(trigger.pid()));
        equal("an event of the trigger", of_trigger, killed)
    });
}

#[test]
fn group_kill() {
    case("memory.oom.group: each victim once, all with one oom.id", || {
        let cgroup = Cgroup::new("group")?.limit(64 * MIB)?.kill_as_group()?;
        let mut log = KernelLog::mark()?;
        let watch = Watch::oom(&[])?;
        let hold = || Plan::new("ct-member").anon(4 << 20).spawn(Some(&cgroup));
        let members = [hold()?, hold()?];
        let eater = Plan::new("ct-eater").spawn(Some(&cgroup))?;
        let mut pids = BTreeSet::from(members.each_ref().map(|member| member.pid()));
        pids.insert(eater.pid());
        eater.eat_until_killed()?;
        for member in members {
            member.killed()?;
        }
        let mut ids = BTreeSet::new();
        for pid in &pids {
            log.killed(*pid, patience(20))?;
            let event = watch.oom_kill(*pid)?;
            equal("oom.oom_cgroup", event.str("/oom/oom_cgroup")?, cgroup.path_text().as_str())?;
            ids.insert(format!("{}", event.get("/oom/id").unwrap_or(&serde_json::Value::Null)));
        }
        equal("oom.id of all", ids.len(), 1)?;
        ensure!(!ids.contains("null"), "no oom.id");
        let ended = watch.stop()?;
        for pid in pids {
            let times = ended.events.iter().filter(|event| event.is_oom_kill_of(pid)).count();
            equal(format!("events of {pid}"), times, 1)?;
        }
        Ok(())
    });
}

#[test]
fn two_kills_have_two_ids() {
    case("two OOM kills have two values of oom.id", || {
        let watch = Watch::oom(&[])?;
        let mut ids = BTreeSet::new();
        for _ in 0..2 {
            let cgroup = Cgroup::new("ids")?.limit(8 * MIB)?;
            let victim = Plan::new("ct-ids").spawn(Some(&cgroup))?;
            let pid = victim.pid();
            victim.eat_until_killed()?;
            let event = watch.oom_kill(pid)?;
            ids.insert(event.get("/oom/id").map(ToString::to_string));
        }
        equal("values of oom.id", ids.len(), 2)?;
        ensure!(!ids.contains(&None), "no oom.id");
        watch.stop().map(drop)
    });
}
