//! CPU quotas, limits of processes and of memory that are hit: the events' figures add up to what the
//! cgroups' own files count.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::command::{finish, run};
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{CgroupVersion, controller, ctrace, in_vm, patience, program};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::cgroup as cgroup_of;
use ctrace_tests::watch::{Ended, Watch};
use serde_json::Value;

use crate::MIB;

/// What is done all the time.
const BUSY: &str = "while :; do :; done";

fn watch(families: &str) -> Result<Watch> {
    let mut command = Command::new(ctrace()?);
    command.args(["watch", "--events", families, "-o", "json"]);
    Watch::start(command)?.attached()
}

/// A number of a file of lines such as `nr_periods 12`.
fn keyed(text: &str, name: &str) -> Result<u64> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(found.with_context(|| format!("no {name} in {text}"))?.trim().parse()?)
}

/// Periods, throttled ones, and nanoseconds throttled.
fn throttled(text: &str) -> Result<[u64; 3]> {
    let time = match keyed(text, "throttled_time") {
        Ok(time) => time,
        Err(_) => keyed(text, "throttled_usec")? * 1000,
    };
    Ok([keyed(text, "nr_periods")?, keyed(text, "nr_throttled")?, time])
}

/// The sums of some fields over the events of a type that have `is_it`.
fn sums<const N: usize>(
    ended: &Ended,
    kind: &str,
    fields: [&str; N],
    is_it: impl Fn(&Event) -> bool,
) -> [u64; N] {
    let mine = ended.events.iter().filter(|event| event.is(kind) && is_it(event));
    mine.fold([0; N], |sums, event| {
        let number = |field: &str| event.get(field).and_then(Value::as_u64).unwrap_or(0);
        println!("  {}", fields.map(|field| format!("{field} {}", number(field))).join(", "));
        std::array::from_fn(|index| sums[index] + number(fields[index]))
    })
}

const THROTTLE: [&str; 3] =
    ["/throttle/periods", "/throttle/throttled_periods", "/throttle/throttled_ns"];

/// The directory of a container's cgroup in the hierarchy of a controller.
fn directory(container: &Container, name: &str) -> Result<(CgroupVersion, PathBuf)> {
    let (version, mount) = controller(name)?;
    let path = cgroup_of(container.pid()?, if version == CgroupVersion::V1 { name } else { "" })?;
    Ok((version, mount.join(path.trim_start_matches('/'))))
}

/// Keeps a container busy for so many seconds.
fn busy(container: &Container, seconds: u32) -> Result<()> {
    let script = format!("timeout {seconds} sh -c '{BUSY}'; :");
    container.exec(&[], &["/bin/sh", "-c", &script]).map(drop)
}

fn is_of(event: &Event, container: &Container) -> bool {
    event.container_id() == Some(&container.id) && event.container_name() == Some(&container.name)
}

fn no_process(event: &Event) -> Result<()> {
    equal("process", event.get("/process"), None)
}

#[test]
fn cpu_quota_of_a_container() {
    case("a container that uses up its CPU quota: the events add up to cpu.stat", || {
        let engine = docker::shared()?;
        let watch = watch("throttle")?;
        let container = engine.start(&["--cpus", "0.1"], &["/bin/sleep", "1000"])?;
        let (_, cgroup) = directory(&container, "cpu")?;
        busy(&container, 2)?;
        let first = watch.event("a throttle event of the container", |event| {
            event.is("throttle") && is_of(event, &container)
        })?;
        println!("  {first}");
        no_process(&first)?;
        equal("quota_ns", first.u64("/throttle/quota_ns")?, 10_000_000)?;
        equal("period_ns", first.u64("/throttle/period_ns")?, 100_000_000)?;
        busy(&container, 2)?;
        settled(|| Ok(fs::read_to_string(cgroup.join("cpu.stat"))?))?;
        let ended = watch.stop()?;
        let truth = throttled(&fs::read_to_string(cgroup.join("cpu.stat"))?)?;
        let told = sums(&ended, "throttle", THROTTLE, |event| is_of(event, &container));
        println!("  cpu.stat: periods, throttled, ns {truth:?}; events {told:?}");
        equal("throttled periods", told[1], truth[1])?;
        equal("nanoseconds throttled", told[2], truth[2])?;
        ensure!(told[0] <= truth[0] && told[0] >= told[1], "periods {} of {}", told[0], truth[0]);
        // On a busy machine it does not get its quota in every period.
        ensure!(truth[1] >= 3, "the load was no load: {truth:?}");
        let events = ended.events.iter().filter(|event| is_of(event, &container)).count();
        ensure!(events <= 3, "{events} events in some seconds: one at once, one at the end");
        in_summary(&ended, &container, truth[2])
    });
}

/// Waits until nothing is counted any more in a file, for which there is no event: the last period is
/// counted after its load has ended.
fn settled(read: impl Fn() -> Result<String>) -> Result<()> {
    let deadline = Instant::now() + patience(10);
    let mut before = read()?;
    loop {
        thread::sleep(Duration::from_millis(500));
        let now = read()?;
        if now == before {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not settle: {now}");
        before = now;
    }
}

/// The summary's line of JSON has the container with the same time.
fn in_summary(ended: &Ended, container: &Container, throttled_ns: u64) -> Result<()> {
    let report = ended.report()?;
    let mine = report.container(&container.name)?;
    println!("  {mine}");
    equal("id", mine["id"].as_str(), Some(container.id.as_str()))?;
    equal("throttled_ns", mine["throttled_ns"].as_u64(), Some(throttled_ns))
}

#[test]
fn stress_ng_in_a_cgroup() {
    case("stress-ng in a plain cgroup with a quota that ctrace finds there", || {
        let stress = program("stress-ng")?;
        let cgroup = Cgroup::of_controller("cpu", "quota")?;
        match cgroup.version() {
            CgroupVersion::V1 => cgroup.set("cpu.cfs_quota_us", "10000")?,
            CgroupVersion::V2 => cgroup.set("cpu.max", "10000 100000")?,
        }
        let mut load = Command::new(&stress);
        load.args(["--cpu", "2", "--timeout", "2s", "--quiet"]);
        let load = || finish(&mut cgroup.enter(&load)).map(drop);
        load()?;
        settled(|| cgroup.get("cpu.stat"))?;
        let before = throttled(&cgroup.get("cpu.stat")?)?;
        let watch = watch("throttle")?;
        let path = cgroup.path_text();
        // What it counted before ctrace started is not told. The first look is what to count from.
        thread::sleep(patience(2));
        load()?;
        settled(|| cgroup.get("cpu.stat"))?;
        let ended = watch.stop()?;
        let after = throttled(&cgroup.get("cpu.stat")?)?;
        let is_it = |event: &Event| event.get("/cgroup/path").is_some_and(|shown| *shown == path);
        let told = sums(&ended, "throttle", THROTTLE, is_it);
        println!("  cpu.stat before {before:?}, after {after:?}; events {told:?}");
        equal("throttled periods", told[1], after[1] - before[1])?;
        equal("nanoseconds throttled", told[2], after[2] - before[2])?;
        ensure!(before[1] > 0 && told[1] > 0, "the load was no load");
        let event = ended.events.iter().find(|event| is_it(event)).context("no event")?;
        equal("container", event.get("/container"), None)
    });
}

/// A shell's script that makes more processes at a time than it may have. The shell gives up at the
/// first fork that fails.
fn fork_many() -> String {
    let seconds = if in_vm() { "5" } else { "0.5" };
    format!("i=0; while [ $i -lt 20 ]; do sleep {seconds} & i=$((i+1)); done; wait")
}

#[test]
fn pids_max() {
    case("forks refused at pids.max, in a container and in a plain cgroup", || {
        let engine = docker::shared()?;
        let watch = watch("pids")?;
        let container = engine.start(&["--pids-limit", "8"], &["/bin/sleep", "1000"])?;
        let script = fork_many();
        for _ in 0..3 {
            // It fails in the shell, or before there is one.
            let _ = container.exec(&[], &["/bin/sh", "-c", &script]);
        }
        let cgroup = Cgroup::of_controller("pids", "pids")?;
        cgroup.set("pids.max", "6")?;
        for _ in 0..2 {
            let mut shell = Command::new("/bin/sh");
            finish(&mut cgroup.enter(shell.args(["-c", &script])))?;
        }
        let path = cgroup.path_text();
        let is_mine = |event: &Event| event.get("/cgroup/path").is_some_and(|at| *at == path);
        let one = watch.event("pids_max of the container", |event| {
            event.is("pids_max") && is_of(event, &container)
        })?;
        println!("  {one}");
        no_process(&one)?;
        equal("limit", one.u64("/pids/limit")?, 8)?;
        let one = watch
            .event("pids_max of the cgroup", |event| event.is("pids_max") && is_mine(event))?;
        println!("  {one}");
        equal("limit", one.u64("/pids/limit")?, 6)?;
        equal("limit_cgroup", one.str("/pids/limit_cgroup")?, path.as_str())?;
        let ended = watch.stop()?;
        let (_, directory) = directory(&container, "pids")?;
        let hits = |events: &str, local: Option<String>| -> Result<u64> {
            keyed(local.as_deref().unwrap_or(events), "max")
        };
        let read = |file: &str| fs::read_to_string(directory.join(file));
        let truth = hits(&read("pids.events")?, read("pids.events.local").ok())?;
        let told = sums(&ended, "pids_max", ["/pids/hits"], |event| is_of(event, &container));
        println!("  pids.events of the container: {truth}, events {told:?}");
        equal("hits of the container", told[0], truth)?;
        let truth = hits(&cgroup.get("pids.events")?, cgroup.get("pids.events.local").ok())?;
        let told = sums(&ended, "pids_max", ["/pids/hits"], is_mine);
        println!("  pids.events of the cgroup: {truth}, events {told:?}");
        equal("hits of the cgroup", told[0], truth)?;
        ensure!(truth > 0, "no fork was refused");
        Ok(())
    });
}

/// Reaches the limit of a memory cgroup without being killed. v1: the page cache, which the kernel can
/// take back. v2: memory of its own, a little above `memory.high`, for which it has to wait.
fn fill(cgroup: &Cgroup, file: &str) -> Result<()> {
    let command = match cgroup.version() {
        CgroupVersion::V1 => format!("dd if=/dev/zero of={file} bs=1M count=64 2>/dev/null"),
        // A line as long as that is kept whole.
        CgroupVersion::V2 => format!("head -c {} /dev/zero | tail >/dev/null", 18 * MIB),
    };
    let mut shell = Command::new("/bin/sh");
    run(&mut cgroup.enter(shell.args(["-c", &command]))).map(drop)
}

#[test]
fn memory_limit() {
    case("a memory limit that is reached without a kill: the events add up", || {
        let watch = watch("memory")?;
        let cgroup = Cgroup::of_controller("memory", "reclaim")?;
        let directory = ctrace_tests::names::TempDir::new("cache")?;
        let file = directory.path().join("cache").display().to_string();
        match cgroup.version() {
            CgroupVersion::V1 => cgroup.set("memory.limit_in_bytes", &(16 * MIB).to_string())?,
            CgroupVersion::V2 => {
                cgroup.set("memory.high", &(16 * MIB).to_string())?;
                cgroup.set("memory.max", &(64 * MIB).to_string())?;
            }
        }
        fill(&cgroup, &file)?;
        let path = cgroup.path_text();
        let is_mine = |event: &Event| event.get("/cgroup/path").is_some_and(|at| *at == path);
        let one = watch.event("memory_pressure of the cgroup", |event| {
            event.is("memory_pressure") && is_mine(event)
        })?;
        println!("  {one}");
        no_process(&one)?;
        fill(&cgroup, &file)?;
        let ended = watch.stop()?;
        let fields = ["/memory/high_events", "/memory/max_events"];
        let told = sums(&ended, "memory_pressure", fields, is_mine);
        let truth = match cgroup.version() {
            CgroupVersion::V1 => [0, cgroup.get("memory.failcnt")?.trim().parse()?],
            CgroupVersion::V2 => {
                let events = cgroup.get("memory.events.local")?;
                [keyed(&events, "high")?, keyed(&events, "max")?]
            }
        };
        println!("  high, max: the cgroup's files {truth:?}, events {told:?}");
        equal("high and max", told, truth)?;
        ensure!(truth != [0, 0], "no limit was reached");
        match cgroup.version() {
            CgroupVersion::V1 => {
                equal("high_events", one.get("/memory/high_events"), None)?;
                equal("limit_bytes", one.u64("/memory/limit_bytes")?, 16 * MIB)
            }
            CgroupVersion::V2 => {
                ensure!(truth[0] > 0, "memory.high was not exceeded");
                stalls(&cgroup, &ended, is_mine, &one)?;
                equal("high_bytes", one.u64("/memory/high_bytes")?, 16 * MIB)?;
                equal("limit_bytes", one.u64("/memory/limit_bytes")?, 64 * MIB)
            }
        }
    });
}

/// Holds the stalls that events tell of against the cgroup's own `memory.pressure`, which has
/// microseconds. It may go on after the last event.
fn stalls(
    cgroup: &Cgroup,
    ended: &Ended,
    is_mine: impl Fn(&Event) -> bool,
    one: &Event,
) -> Result<()> {
    let Ok(pressure) = cgroup.get("memory.pressure") else {
        return equal("some_ns without PSI", one.get("/memory/some_ns"), None);
    };
    let total = |line: &str| -> Result<u64> {
        let line = pressure.lines().find(|text| text.starts_with(line)).context("no such line")?;
        Ok(line.rsplit_once("total=").context("no total")?.1.trim().parse::<u64>()? * 1000)
    };
    let truth = [total("some")?, total("full")?];
    let fields = ["/memory/some_ns", "/memory/full_ns"];
    let told = sums(ended, "memory_pressure", fields, is_mine);
    println!("  stalls: memory.pressure {truth:?}, events {told:?}");
    for (told, truth) in told.into_iter().zip(truth) {
        ensure!(told <= truth && truth <= told + told / 10 + 1_000_000, "{told} of {truth} ns");
    }
    Ok(())
}

/// Directories that are removed when dropped, the last first.
struct Directories(Vec<PathBuf>);

impl Drop for Directories {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            if let Err(error) = fs::remove_dir(directory) {
                eprintln!("leaving {}: {error}", directory.display());
            }
        }
    }
}

/// CPU time of a process, in clock ticks: user and system.
fn ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// CPU time of ctrace at rest, of a hundred: over some seconds.
fn load_at_rest(families: &str) -> Result<f64> {
    const SECONDS: u32 = 5;
    let watch = watch(families)?;
    // Start-up and the first look at all cgroups are not what is measured.
    thread::sleep(Duration::from_secs(4));
    let before = ticks(watch.pid())?;
    thread::sleep(Duration::from_secs(SECONDS.into()));
    let used = ticks(watch.pid())? - before;
    watch.stop()?;
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(used as f64 * 100.0 / per_second as f64 / f64::from(SECONDS))
}

#[test]
fn cost_of_five_hundred_containers() {
    case("500 containers with three limits each: what looking at them costs", || {
        const CONTAINERS: usize = 500;
        if in_vm() {
            return Err(cannot("an emulated machine has no cost worth measuring"));
        }
        let mut made = Directories(Vec::new());
        for (name, file, limit) in [
            ("cpu", ["cpu.cfs_quota_us", "cpu.max"], ["50000", "50000 100000"]),
            ("pids", ["pids.max"; 2], ["100"; 2]),
            ("memory", ["memory.limit_in_bytes", "memory.max"], ["104857600"; 2]),
        ] {
            let (version, mount) = controller(name)?;
            let which = usize::from(version == CgroupVersion::V2);
            ensure!(version == CgroupVersion::V1, "cannot: written for hierarchies apart");
            let parent = mount.join(unique("many"));
            fs::create_dir(&parent)?;
            made.0.push(parent.clone());
            for index in 0..CONTAINERS {
                let container = parent.join(format!("{index:064x}"));
                fs::create_dir(&container)?;
                made.0.push(container.clone());
                fs::write(container.join(file[which]), limit[which])?;
            }
        }
        let without = load_at_rest("oom")?;
        let with = load_at_rest("throttle,pids,memory")?;
        println!("  % of a CPU: without the three {without:.2}, with them {with:.2}");
        ensure!(with - without < 10.0, "{with} % of a CPU");
        Ok(())
    });
}
