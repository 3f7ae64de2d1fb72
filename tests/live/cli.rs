//! `ctrace watch` and `ctrace check` as programs: usage, exit codes, signals.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::command::{Finished, finish, finish_unprivileged};
use ctrace_tests::facts::ctrace;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, signal};
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::{Watch, no_panic, watch_oom};
use serde_json::Value;

use crate::MIB;

/// One OOM kill in a cgroup of its own; the victim's pid.
pub fn kill_one() -> Result<u32> {
    let cgroup = Cgroup::new("cli")?.limit(8 * MIB)?;
    let victim = Plan::new("ct-cli").spawn(Some(&cgroup))?;
    let pid = victim.pid();
    victim.eat_until_killed()?;
    Ok(pid)
}

fn run(arguments: &[&str], code: i32) -> Result<Finished> {
    let finished = finish(Command::new(ctrace()?).args(arguments))?.expect_code(code)?;
    no_panic(std::slice::from_ref(&finished.stderr))?;
    println!("  ctrace {}: exit {code}", arguments.join(" "));
    Ok(finished)
}

#[test]
fn unknown_event_name() {
    case("an unknown event name: exit 2 and the names there are", || {
        let finished = run(&["watch", "--events", "nonsense"], 2)?;
        println!("  {}", finished.stderr.trim());
        ensure!(finished.stderr.contains("nonsense"), "the message does not say which name");
        ensure!(finished.stderr.contains("oom"), "the message does not list the names");
        ensure!(finished.stdout.is_empty(), "output in spite of the error");
        Ok(())
    });
}

#[test]
fn bad_usage() {
    case("bad usage: exit 2", || {
        for arguments in [
            &["watch", "--no-such-option"][..],
            &["no-such-command"],
            &["watch", "--duration", "soon"],
            &["watch", "-n", "-3"],
            &["watch", "-o", "xml"],
            &["watch", "--rare-ring-size", "4095"],
        ] {
            let finished = run(arguments, 2)?;
            ensure!(!finished.stderr.trim().is_empty(), "no word about what is wrong");
        }
        Ok(())
    });
}

#[test]
fn duration() {
    case("--duration 1s ends by itself with exit 0", || {
        let began = Instant::now();
        let watch = Watch::oom(&["--duration", "1s"])?;
        let ended = watch.ended(0)?;
        let took = began.elapsed();
        println!("  took {took:?}");
        ensure!(took.as_secs() >= 1, "ended before the second was over: {took:?}");
        ended.summary(&["lost"]).map(drop)
    });
}

#[test]
fn count() {
    case("-n 1 ends by itself after one event with exit 0", || {
        let watch = Watch::oom(&["-n", "1"])?;
        kill_one()?;
        let ended = watch.ended(0)?;
        equal("events", ended.events.len(), 1)
    });
}

#[test]
fn signals() {
    case("SIGINT and SIGTERM end it with exit 0 and a summary", || {
        for ending in [Signal::Int, Signal::Term] {
            let watch = Watch::oom(&[])?;
            let pid = kill_one()?;
            watch.oom_kill(pid)?;
            signal(watch.pid(), ending)?;
            let ended = watch.ended(0)?;
            println!("  {ending:?}: exit 0");
            ended.summary(&["oom_kill"])?;
            ended.summary(&["lost"])?;
        }
        Ok(())
    });
}

#[test]
fn two_at_once() {
    case("two copies at once see the same kill", || {
        let (first, second) = (Watch::oom(&[])?, Watch::oom(&[])?);
        let pid = kill_one()?;
        let (one, two) = (first.oom_kill(pid)?, second.oom_kill(pid)?);
        for pointer in ["/process", "/cgroup", "/oom/limit_bytes", "/oom/anon_rss_bytes"] {
            let value = one.get(pointer).with_context(|| format!("no {pointer} in {one}"))?;
            equal(pointer, value, two.get(pointer).context("only one has it")?)?;
        }
        first.stop()?;
        // The one that goes on is not disturbed by the one that ended.
        let pid = kill_one()?;
        second.oom_kill(pid)?;
        second.stop().map(drop)
    });
}

#[test]
fn unprivileged() {
    case("an ordinary user: a clear error, exit 1", || {
        let finished = finish_unprivileged(&["watch", "--events", "oom"])?.expect_code(1)?;
        println!("  {}", finished.stderr.trim());
        let said = finished.stderr.to_lowercase();
        let reasons = ["root", "privilege", "permission", "permitted", "cap_"];
        ensure!(reasons.iter().any(|word| said.contains(word)), "the reason is not said");
        ensure!(said.lines().count() <= 5, "more than a message");
        no_panic(&[finished.stderr])
    });
}

#[test]
fn check_as_text() {
    case("ctrace check: exit 0, and the OOM hook is in it", || {
        let finished = run(&["check"], 0)?;
        let text = finished.text()?;
        println!("{text}");
        ensure!(text.to_lowercase().contains("oom"), "nothing about OOM");
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        ensure!(text.contains(release.trim()), "not this kernel's release");
        Ok(())
    });
}

#[test]
fn check_as_json() {
    case("ctrace check -o json: exit 0 and one valid object", || {
        let finished = run(&["check", "-o", "json"], 0)?;
        let value: Value = serde_json::from_slice(&finished.stdout).context("not JSON")?;
        let object = value.as_object().context("not an object")?;
        println!("  keys: {:?}", object.keys().collect::<Vec<_>>());
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        ensure!(value.to_string().contains(release.trim()), "not this kernel's release");
        Ok(())
    });
}

#[test]
fn nothing_but_events_on_stdout() {
    case("standard output has events only, from the first byte", || {
        let mut command = watch_oom(&["-o", "json"], &["--duration", "1s"])?;
        let finished = finish(&mut command)?.expect_code(0)?;
        let first = finished.text()?.lines().find(|line| !line.starts_with('{'));
        equal("lines that are no objects", first, None::<&str>)?;
        ensure!(finished.stderr.contains("attached:"), "no attached: line on stderr");
        Ok(())
    });
}
