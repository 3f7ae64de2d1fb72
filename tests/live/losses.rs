//! A ring that is too small: what came and what is said to be lost is all that there was, and the gap
//! is where it is said to be. Of the rare ring and the lifecycle ring see `churn` and
//! `lifecycle_loss`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{ctrace, patience};
use ctrace_tests::names::TempDir;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

use crate::cli::kill_one;

/// Programs that the process becomes while ctrace runs, is stopped, and runs again.
const STAGES: [u64; 3] = [20, 400, 20];

/// A process that becomes the same shell again and again, counting; after each stage it says so and
/// waits.
struct Counter {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _script: TempDir,
}

impl Counter {
    fn start() -> Result<Self> {
        let directory = TempDir::new("counter")?;
        let script = directory.path().join("count");
        let mut stops = vec![0];
        STAGES.iter().for_each(|stage| stops.push(stops.last().unwrap_or(&0) + stage));
        let last = stops.pop().context("no stages")?;
        let stops: Vec<String> = stops.iter().map(u64::to_string).collect();
        let text = format!(
            "case $1 in {}) echo $1; read go;; {last}) exit 7;; esac\nexec /bin/sh $0 $(($1+1))\n",
            stops.join("|")
        );
        fs::write(&script, text)?;
        let mut command = Command::new("/bin/sh");
        command.arg(&script).arg("0").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut counter = Counter { child, stdin, stdout, _script: directory };
        counter.arrives(0)?;
        Ok(counter)
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"go\n")?)
    }

    /// Waits until it has come to the end of a stage.
    fn arrives(&mut self, at: u64) -> Result<()> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        equal("the counter's stage", line.trim(), at.to_string().as_str())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // It may have ended; its id stays its own until it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The count in the arguments of an exec.
fn count(event: &Event) -> Option<u64> {
    event.get("/exec/args")?.as_array()?.last()?.as_str()?.parse().ok()
}

#[test]
fn of_the_bulk_ring() {
    case(
        "a stopped ctrace with a small bulk ring: each exec is seen or counted, in its place",
        || {
            let mut counter = Counter::start()?;
            let pid = counter.child.id().to_string();
            let watch = Watch::processes(&["--bulk-ring-size", "4096", "--pid", &pid])?;
            let [before, during, after] = STAGES;
            counter.go()?;
            counter.arrives(before)?;
            watch.event("the execs before", |event| count(event) == Some(before))?;
            let stopped = watch.stop_for_now()?;
            counter.go()?;
            counter.arrives(before + during)?;
            stopped.go_on()?;
            watch.event("a lost line", |event| event.is("lost"))?;
            counter.go()?;
            let exit = watch.event("its exit", |event| event.is("exit"))?;
            equal("exit.code", exit.u64("/exit/code")?, 7)?;
            let ended = watch.stop()?;

            let all = before + during + after;
            let seen: Vec<u64> = ended.events.iter().filter_map(count).collect();
            let lost =
                ended.events.iter().map(|event| event.lost(Some("exec"))).sum::<Result<u64>>()?;
            println!("  execs {all}, seen {}, lost {lost}", seen.len());
            equal("seen + lost", u64::try_from(seen.len())? + lost, all)?;
            ensure!(lost > 0, "the ring of 4096 bytes held all: the test forced no loss");
            equal("seen in order", seen.is_sorted(), true)?;
            // Each lost line counts what is missing between the events around it.
            for (index, event) in
                ended.events.iter().enumerate().filter(|(_, event)| event.is("lost"))
            {
                equal("lost.ring", event.str("/lost/ring")?, "bulk")?;
                let last = ended.events[..index].iter().rev().find_map(count).unwrap_or(0);
                let next =
                    ended.events[index..].iter().find_map(count).context("nothing after it")?;
                println!("  lost {} between {last} and {next}", event.lost(None)?);
                equal("missing there", next - last - 1, event.lost(None)?)?;
            }
            let line = ended.summary(&["lost", "exec", "bulk"])?;
            ensure!(line.contains(&format!("{lost} exec in bulk")), "the summary: {line}");
            Ok(())
        },
    );
}

#[test]
fn none_where_the_ring_is_large_enough() {
    case("the same with the ring as it is: nothing is lost", || {
        let mut counter = Counter::start()?;
        let pid = counter.child.id().to_string();
        let watch = Watch::processes(&["--pid", &pid])?;
        let stopped = watch.stop_for_now()?;
        let mut at = 0;
        for stage in STAGES {
            counter.go()?;
            at += stage;
            if at < STAGES.iter().sum() {
                counter.arrives(at)?;
            }
        }
        counter.child.wait()?;
        stopped.go_on()?;
        let events = watch.events(patience(10), "its exit", |events| {
            events.iter().any(|event| event.is("exit"))
        })?;
        let seen: Vec<u64> = events.iter().filter_map(count).collect();
        equal("execs seen", seen, (1..=at).collect::<Vec<_>>())?;
        let ended = watch.stop()?;
        equal("lost", ended.events.iter().filter(|event| event.is("lost")).count(), 0)
    });
}

#[test]
fn rare_events_survive_a_flood_of_others() {
    case("OOM kills before, in and after a flood that fills the bulk ring: none is lost", || {
        const KILLS: usize = 4;
        let mut counter = Counter::start()?;
        let mut command = Command::new(ctrace()?);
        command.args(["watch", "--events", "oom,exec,exit", "-o", "json"]);
        command.args(["--bulk-ring-size", "4096"]);
        let watch = Watch::start(command)?.attached()?;
        let stopped = watch.stop_for_now()?;
        let mut at = 0;
        let mut victims = Vec::new();
        for stage in [STAGES[0], STAGES[1]] {
            victims.extend((0..KILLS).map(|_| kill_one()).collect::<Result<Vec<_>>>()?);
            counter.go()?;
            at += stage;
            counter.arrives(at)?;
        }
        victims.extend((0..KILLS).map(|_| kill_one()).collect::<Result<Vec<_>>>()?);
        stopped.go_on()?;
        for pid in &victims {
            watch.oom_kill(*pid)?;
        }
        let ended = watch.stop()?;
        let mut by_ring = BTreeMap::new();
        for event in ended.events.iter().filter(|event| event.is("lost")) {
            *by_ring.entry(event.str("/lost/ring")?).or_insert(0) += event.lost(None)?;
        }
        println!("  victims {}, lost by ring {by_ring:?}", victims.len());
        ensure!(by_ring.contains_key("bulk"), "the bulk ring held all: the test forced no loss");
        equal("lost in the rare ring", by_ring.get("rare"), None)
    });
}
