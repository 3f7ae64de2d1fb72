//! Which processes are watched, and that the kernel already leaves out the others.

use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::{finish, run};
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{ctrace, patience};
use ctrace_tests::gate::Gate;
use ctrace_tests::image::Image;
use ctrace_tests::marked::{self, mark_of, mark_of_shell};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::cgroup;
use ctrace_tests::watch::{Ended, Watch};

/// Processes on the host that nobody asked for: far more ends than the small ring holds.
const FLOOD: usize = 500;
/// Processes before that, while ctrace reads.
const WARM_UP: usize = 100;
const SMALL: [&str; 2] = ["--bulk-ring-size", "4096"];

#[test]
fn the_first_exec_of_a_container_to_come() {
    case("--container NAME --wait: its very first exec is there", || {
        let engine = docker::shared()?;
        let name = unique("filter");
        let watch = Watch::processes(&["--container", &name, "--wait"])?;
        let command = marked::command(&name, 2);
        let id = engine.run_to_end(&name, &[], &command.each_ref().map(String::as_str))?;
        let events = watch.events(patience(10), "its execs", |events| {
            events.iter().filter(|event| mark_of(event) == Some(&name)).count() == 2
                && events.iter().any(|event| mark_of_shell(event) == Some(&name))
        })?;
        println!("  events {}", events.len());
        only(&watch.stop()?, |event| event.container_id() == Some(&id))
    });
}

#[test]
fn by_image() {
    case("--image GLOB: containers of other images are left out", || {
        let engine = docker::shared()?;
        let image = &Image::shared()?.name;
        let glob = image.replace("busybox", "*").replace(":1", ":?");
        println!("  --image {glob}");
        let watch = Watch::processes(&["--image", &glob])?;
        let none = Watch::processes(&["--image", "ctrace-test-*-nothing:*"])?;
        let name = unique("filter");
        let command = marked::command(&name, 2);
        let id = engine.run_to_end(&name, &[], &command.each_ref().map(String::as_str))?;
        watch.events(patience(10), "its execs", |events| {
            events.iter().filter(|event| mark_of(event) == Some(&name)).count() == 2
        })?;
        only(&watch.stop()?, |event| event.container_id() == Some(&id))?;
        equal("events of no image", none.stop()?.events.len(), 0)
    });
}

/// Two containers that become the marked command, each once its gate is open.
struct Two {
    mark: String,
    wanted: (Container, Gate),
    other: (Container, Gate),
}

impl Two {
    fn start() -> Result<Self> {
        let mark = unique("filter");
        let start = || docker::shared()?.start_gated(&[], &format!("{} {mark}", marked::PROGRAM));
        Ok(Two { wanted: start()?, other: start()?, mark })
    }

    /// The other one's exec would come first.
    fn exec(&mut self, watch: &Watch) -> Result<Event> {
        self.other.1.open()?;
        self.other.0.wait()?;
        self.wanted.1.open()?;
        watch.event("the exec", |event| mark_of(event) == Some(&self.mark))
    }
}

#[test]
fn by_pid() {
    case("--pid: this process alone", || {
        let mut two = Two::start()?;
        let pid = two.wanted.0.pid()?;
        let watch = Watch::processes(&["--pid", &pid.to_string()])?;
        let event = two.exec(&watch)?;
        equal("container.id", event.container_id(), Some(two.wanted.0.id.as_str()))?;
        watch.event("its exit", |event| event.is("exit") && event.is_of(pid))?;
        only(&watch.stop()?, |event| event.is_of(pid))
    });
}

#[test]
fn by_cgroup() {
    case("--cgroup PATH: what is in it alone", || {
        let mut two = Two::start()?;
        let path = cgroup(two.wanted.0.pid()?, "")?;
        let watch = Watch::processes(&["--cgroup", &path])?;
        let event = two.exec(&watch)?;
        equal("cgroup.path", event.str("/cgroup/path")?, path.as_str())?;
        only(&watch.stop()?, |event| event.container_id() == Some(&two.wanted.0.id))
    });
}

/// There are events, and all are wanted.
fn only(ended: &Ended, wanted: impl Fn(&Event) -> bool) -> Result<()> {
    ended.summary(&["events"])?;
    ensure!(!ended.events.is_empty(), "no events");
    match ended.events.iter().find(|event| !wanted(event)) {
        Some(event) => Err(anyhow!("an event that was not asked for: {event}")),
        None => Ok(()),
    }
}

#[test]
fn a_flood_elsewhere() {
    case("a flood of processes elsewhere does not get past the kernel", || {
        let (container, mut gate) =
            docker::shared()?.start_gated(&[], &format!("{} {}", marked::PROGRAM, unique("x")))?;
        let pid = container.pid()?;
        let path = cgroup(pid, "")?;
        let pid_text = pid.to_string();
        let filters = [["--container", &container.name], ["--pid", &pid_text], ["--cgroup", &path]];
        // Without a filter the ring is too small: the measure measures.
        let all = flooded(&SMALL)?;
        ensure!(lost(&all.stop()?)? > 0, "a ring of 4096 bytes held {FLOOD} ends");
        let mut watches = Vec::new();
        for filter in filters {
            let watch = flooded(&[&filter[..], &SMALL].concat())?;
            watches.push((filter, watch));
        }
        gate.open()?;
        for (filter, watch) in watches {
            println!("  {filter:?}");
            watch.event("the exec", |event| event.is("exec") && event.is_of(pid))?;
            let ended = watch.stop()?;
            // Before it has decided, records may come faster than a slow machine reads them.
            let lost = lost(&ended)?;
            ensure!(lost <= WARM_UP as u64, "{lost} of a flood of {FLOOD} were lost");
            only(&ended, |event| event.is_of(pid))?;
        }
        Ok(())
    });
}

/// A ctrace that could not read while the host was busy.
fn flooded(arguments: &[&str]) -> Result<Watch> {
    let watch = Watch::processes(arguments)?;
    let script = "i=0; while [ $i -lt $1 ]; do (:); i=$((i+1)); done";
    let flood =
        |count: usize| run(Command::new("/bin/sh").args(["-c", script, "sh", &count.to_string()]));
    // In which time it decides for the place where they are; a stopped one cannot.
    flood(WARM_UP)?;
    watch.stall_while(|| flood(FLOOD))?;
    Ok(watch)
}

fn lost(ended: &Ended) -> Result<u64> {
    ended.summary(&["lost"])?;
    ended.events.iter().map(|event| event.lost(None)).sum()
}

#[test]
fn bad_values() {
    case("values that no filter takes: exit 2", || {
        for arguments in [
            ["--pid", "0"],
            ["--pid", "self"],
            ["--pid", "4294967296"],
            ["--cgroup", "system.slice"],
            ["--cgroup", ""],
            ["--container", &unique("nobody")],
            ["--events", "exec,nonsense"],
        ] {
            let mut command = Command::new(ctrace()?);
            command.args(["watch", "--events", "exec"]).args(arguments);
            let finished = finish(command.args(["--duration", "1s"]))?;
            let finished = finished.expect_code(2).with_context(|| format!("{arguments:?}"))?;
            println!("  {arguments:?}: {}", finished.stderr.lines().next().unwrap_or_default());
            ensure!(finished.stdout.is_empty(), "output in spite of the error");
            ensure!(!finished.stderr.trim().is_empty(), "no word about what is wrong");
        }
        Ok(())
    });
}
