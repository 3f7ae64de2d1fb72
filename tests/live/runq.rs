//! Waits for a CPU, held against what the scheduler itself counts.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::docker;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{ctrace, patience, v1_mount, v2_mount};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, Stopped, signal};
use ctrace_tests::watch::Watch;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const BUSY: &str = "while :; do :; done";

/// Starts `ctrace watch --events EVENTS -o json` with more arguments, and waits until it is in place.
fn watch(events: &str, arguments: &[&str]) -> Result<Watch> {
    let mut command = Command::new(ctrace()?);
    command.args(["watch", "--events", events, "-o", "json"]).args(arguments);
    Watch::start(command)?.attached()
}

/// A process that takes all it can get of a CPU; killed on drop.
struct Hog(Child);

impl Hog {
    /// On this CPU only, or on any.
    fn start(cpu: Option<u32>) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", BUSY]);
        if let Some(cpu) = cpu {
            let cpus = only(cpu);
            // SAFETY: the function is called after fork; it only makes a system call.
            unsafe { command.pre_exec(move || Ok(sched_setaffinity(None, &cpus)?)) };
        }
        Ok(Hog(command.stdin(Stdio::null()).spawn()?))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Stops it, and waits until it no longer waits for a CPU.
    fn stop(&self) -> Result<Stopped> {
        let stopped = Stopped::new(self.pid())?;
        let deadline = Instant::now() + patience(10);
        while state(self.pid())? != 'T' {
            ensure!(Instant::now() < deadline, "{} does not stop", self.pid());
            thread::yield_now();
        }
        Ok(stopped)
    }

    /// Has it run once, where it cannot be moved: how long a task has waited before it was moved is
    /// only known of one that was seen to get a CPU before.
    fn introduce(&self, stopped: Stopped) -> Result<Stopped> {
        let (runs, pid) = (self.runs()?, Some(Pid::from_child(&self.0)));
        let cpus = sched_getaffinity(pid)?;
        sched_setaffinity(pid, &only(a_cpu()?))?;
        stopped.go_on()?;
        let deadline = Instant::now() + patience(10);
        while self.runs()? == runs {
            ensure!(Instant::now() < deadline, "{} gets no CPU", self.pid());
            thread::yield_now();
        }
        let stopped = self.stop()?;
        sched_setaffinity(pid, &cpus)?;
        Ok(stopped)
    }

    /// Nanoseconds that it has waited for a CPU, as the scheduler counts.
    fn waited(&self) -> Result<u64> {
        self.schedstat(1)
    }

    /// How often it got one.
    fn runs(&self) -> Result<u64> {
        self.schedstat(2)
    }

    fn schedstat(&self, index: usize) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid()))?;
        let number = text.split_whitespace().nth(index).context("too few numbers in schedstat")?;
        Ok(number.parse()?)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A set of this CPU.
fn only(cpu: u32) -> CpuSet {
    let mut cpus = CpuSet::new();
    cpus.set(cpu as usize);
    cpus
}

/// The letter of a process's state.
fn state(pid: u32) -> Result<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(") ").context("no name in stat")?.1;
    after.chars().next().context("no state in stat")
}

/// A CPU that this process may use.
fn a_cpu() -> Result<u32> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = list.context("no Cpus_allowed_list")?.trim().split([',', '-']).next();
    Ok(first.context("an empty list of CPUs")?.parse()?)
}

/// A cgroup of the hierarchy that waits are summed up by.
fn a_cgroup() -> Result<Cgroup> {
    let mount = match v1_mount("pids")? {
        Some(mount) => mount,
        None => v2_mount()?.context("no hierarchy that stands for tasks is mounted")?,
    };
    Cgroup::in_hierarchy(&mount, &unique("runq"))
}

/// Hogs of one CPU in a cgroup.
struct Hogs {
    /// Where they are stopped: what lets them go on. Dropped before they are killed.
    stopped: Vec<Stopped>,
    hogs: [Hog; 3],
}

fn stopped_hogs(cgroup: &Cgroup) -> Result<Hogs> {
    let cpu = a_cpu()?;
    let hogs = [Hog::start(Some(cpu))?, Hog::start(Some(cpu))?, Hog::start(Some(cpu))?];
    let hogs = Hogs { hogs, stopped: Vec::new() }.stop()?;
    hogs.hogs.iter().try_for_each(|hog| cgroup.take(hog.pid()))?;
    Ok(hogs)
}

impl Hogs {
    fn stop(self) -> Result<Self> {
        let stopped = self.hogs.iter().map(Hog::stop).collect::<Result<_>>()?;
        Ok(Self { stopped, ..self })
    }

    fn go_on(self) -> Result<Self> {
        self.stopped.into_iter().try_for_each(Stopped::go_on)?;
        Ok(Self { hogs: self.hogs, stopped: Vec::new() })
    }

    /// Their waits, as the scheduler counts.
    fn waits(&self) -> Result<Waits> {
        let sum = |of: fn(&Hog) -> Result<u64>| self.hogs.iter().map(of).sum::<Result<u64>>();
        Ok(Waits { count: sum(Hog::runs)?, sum_ns: sum(Hog::waited)? })
    }
}

/// What was seen of hogs, and by the scheduler's own counts how long each has waited, nanoseconds, and
/// how often it got a CPU.
struct Competed {
    events: Vec<Event>,
    waited: Vec<u64>,
    runs: u64,
}

/// Tries until `attempt` saw that the kernel told of all runs: a hardened 6.18 calls nobody, neither
/// ctrace nor perf, at switches from some tasks.
fn until_all_is_told(mut attempt: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..10 {
        if attempt()? {
            return Ok(());
        }
        println!("  the kernel has not told of all runs");
    }
    bail!("the kernel has not told of all runs in ten tries")
}

/// Lets hogs compete until each has got a CPU so often, watched by ctrace with these arguments.
fn compete(hogs: &[Hog], times: u64, family: &str, options: &[&str]) -> Result<Competed> {
    let of_all =
        |count: fn(&Hog) -> Result<u64>| hogs.iter().map(count).collect::<Result<Vec<_>>>();
    let stopped = hogs.iter().map(Hog::stop).collect::<Result<Vec<_>>>()?;
    let (waited, runs) = (of_all(Hog::waited)?, of_all(Hog::runs)?);
    let pids: Vec<_> = hogs.iter().map(|hog| hog.pid().to_string()).collect();
    let mut arguments = vec!["--bulk-ring-size", "16M"];
    arguments.extend(options);
    arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid.as_str()]));
    let watch = watch(family, &arguments)?;
    let introduced = hogs.iter().zip(stopped).map(|(hog, stopped)| hog.introduce(stopped));
    let stopped = introduced.collect::<Result<Vec<_>>>()?;
    stopped.into_iter().try_for_each(Stopped::go_on)?;
    let deadline = Instant::now() + patience(20);
    while of_all(Hog::runs)?.iter().zip(&runs).any(|(now, before)| now - before < times) {
        ensure!(Instant::now() < deadline, "hogs do not wait for each other");
        thread::sleep(Duration::from_millis(5));
    }
    let stopped = hogs.iter().map(Hog::stop).collect::<Result<Vec<_>>>()?;
    let after = of_all(Hog::waited)?;
    let runs = of_all(Hog::runs)?.iter().sum::<u64>() - runs.iter().sum::<u64>();
    let ended = watch.stop()?;
    drop(stopped);
    let lost = ended.events.iter().filter(|event| event.is("lost"));
    equal("lost", lost.inspect(|event| println!("  {event}")).count(), 0)?;
    let waited = after.iter().zip(waited).map(|(after, before)| after - before).collect();
    Ok(Competed { events: ended.events, waited, runs })
}

/// Waits of one or more tasks.
struct Waits {
    count: u64,
    sum_ns: u64,
}

impl Waits {
    fn since(&self, before: &Waits) -> Waits {
        Waits { count: self.count - before.count, sum_ns: self.sum_ns - before.sum_ns }
    }
}

/// The waits of these events and those that were told with them.
fn told_of(events: &[Event]) -> Result<Waits> {
    let sum = |field: &str| events.iter().map(|event| event.u64(field)).sum::<Result<u64>>();
    let waits = Waits { count: sum("/sched/count")?, sum_ns: sum("/sched/sum_ns")? };
    println!("  {} events of {} waits", events.len(), waits.count);
    Ok(waits)
}

#[test]
fn on_one_cpu() {
    case("two hogs on one CPU: their delays add up to what the scheduler counts", || {
        let cpu = a_cpu()?;
        let hogs = [Hog::start(Some(cpu))?, Hog::start(Some(cpu))?];
        until_all_is_told(|| {
            let Competed { events, waited, runs } = compete(&hogs, 40, "runq:all", &[])?;
            let delays: Vec<_> = events.iter().filter(|event| event.is("runq_delay")).collect();
            println!("  {} waits, {runs} runs", delays.len());
            if (delays.len() as u64) < runs {
                return Ok(false);
            }
            for (hog, waited) in hogs.iter().zip(waited) {
                let of_hog = delays.iter().filter(|event| event.is_of(hog.pid()));
                let sum = of_hog.map(|event| event.u64("/sched/delay_ns")).sum::<Result<u64>>()?;
                equal("sum of the delays", sum, waited)?;
            }
            for event in &delays {
                ensure!(event.u64("/sched/cpu")? == u64::from(cpu), "on another CPU: {event}");
                let before = event.get("/sched/before/tid").and_then(|tid| tid.as_u64());
                ensure!(before != event.u64("/process/tid").ok(), "it ran before itself: {event}");
            }
            let preempted = |event: &&&Event| event.get("/sched/preempted") == Some(&true.into());
            let preempted = delays.iter().filter(preempted).count();
            println!("  {preempted} of {} were preempted", delays.len());
            ensure!(preempted * 2 > delays.len(), "hogs do not sleep: they are preempted");
            Ok(true)
        })
    });
}

#[test]
fn on_all_cpus() {
    case("more hogs than CPUs, which are moved while they wait: their delays add up", || {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let hogs = (0..=cpus + 1).map(|_| Hog::start(None)).collect::<Result<Vec<_>>>()?;
        until_all_is_told(|| {
            // Told together: one event for each wait would take the CPUs from them, and make more waits.
            let Competed { events, waited, runs } =
                compete(&hogs, 40, "runq", &["--runq-slower", "0"])?;
            let waits = told_of(&events)?;
            if waits.count < runs {
                return Ok(false);
            }
            equal("sum of the delays", waits.sum_ns, waited.iter().sum::<u64>())?;
            Ok(true)
        })
    });
}

#[test]
fn only_slow_ones() {
    case("--runq-slower: nothing faster is shown", || {
        let cpu = a_cpu()?;
        let _hogs = [Hog::start(Some(cpu))?, Hog::start(Some(cpu))?, Hog::start(Some(cpu))?];
        let slow = watch("runq", &["--runq-slower", "2ms", "--no-fold"])?;
        let never = watch("runq", &["--runq-slower", "1h"])?;
        slow.events(patience(20), "delays", |events| events.len() >= 50)?;
        for event in slow.stop()?.events.iter().filter(|event| event.is("runq_delay")) {
            let delay = event.u64("/sched/delay_ns")?;
            ensure!(delay >= 2_000_000, "a delay of {delay} ns");
        }
        equal("delays of an hour", never.stop()?.events.len(), 0)
    });
}

#[test]
fn told_together() {
    case("hogs in a cgroup: a wait at once, then one event a second; all add up", || {
        let cgroup = a_cgroup()?;
        until_all_is_told(|| {
            let hogs = stopped_hogs(&cgroup)?;
            let before = hogs.waits()?;
            let path = cgroup.path_text();
            let watch = watch("runq", &["--runq-slower", "0", "--cgroup", &path])?;
            let hogs = hogs.go_on()?;
            let begun = Instant::now();
            watch.events(patience(20), "three events", |events| events.len() >= 3)?;
            let hogs = hogs.stop()?;
            let truth = hogs.waits()?.since(&before);
            let seconds = begun.elapsed().as_secs();
            let events = watch.stop()?.events;
            let waits = told_of(&events)?;
            if waits.count < truth.count {
                return Ok(false);
            }
            equal("sum of the waits", waits.sum_ns, truth.sum_ns)?;
            ensure!(events.len() as u64 <= seconds + 3, "{} in {seconds} s", events.len());
            equal("count of the first", events[0].u64("/sched/count")?, 1)?;
            for event in &events {
                let (longest, count) = (event.u64("/sched/delay_ns")?, event.u64("/sched/count")?);
                let sum = event.u64("/sched/sum_ns")?;
                ensure!(longest <= sum && sum <= longest * count, "not the longest: {event}");
            }
            Ok(true)
        })
    });
}

#[test]
fn a_neighbour_of_a_container() {
    case("a hog of the host and one of a container on one CPU: each is named to the other", || {
        let cpu = a_cpu()?.to_string();
        let engine = docker::shared()?;
        let options = ["--cpuset-cpus", cpu.as_str()];
        let container = engine.start(&options, &["/bin/sh", "-c", BUSY])?;
        let (pid, hog) = (container.pid()?, Hog::start(Some(cpu.parse()?))?);
        let of_container =
            watch("runq", &["--runq-slower", "1ms", "--no-fold", "--container", &container.name])?;
        let all = watch("runq", &["--runq-slower", "1ms", "--no-fold"])?;
        let event = of_container.event("the container's wait", |event| {
            event.is_of(pid) && event.u64("/sched/before/pid").ok() == Some(hog.pid().into())
        })?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("before.container", event.get("/sched/before/container"), None)?;
        let event = all.event("the host's wait", |event| {
            event.is_of(hog.pid()) && event.u64("/sched/before/pid").ok() == Some(pid.into())
        })?;
        equal("container", event.container_id(), None)?;
        equal("before.container.id", event.str("/sched/before/container/id")?, &container.id)?;
        let ended = of_container.stop()?;
        let stranger = ended
            .events
            .iter()
            .find(|event| event.is("runq_delay") && event.container_id() != Some(&container.id));
        ensure!(stranger.is_none(), "an event of another: {stranger:?}");
        all.stop()?;
        container.kill()
    });
}

#[test]
fn a_quota_is_told_apart() {
    case("a container with a tenth of a CPU: its waits are told as its quota's", || {
        let engine = docker::shared()?;
        let container = engine.start(&["--cpus", "0.1"], &["/bin/sh", "-c", BUSY])?;
        let pid = container.pid()?;
        let others = watch("runq", &["--runq-slower", "30ms", "--container", &container.name])?;
        let watch = watch("runq:all", &["--container", &container.name])?;
        let is_throttled = |event: &&Event| event.get("/sched/throttled") == Some(&true.into());
        let events = watch.events(patience(20), "throttled waits", |events| {
            events.iter().filter(|event| event.is_of(pid)).filter(is_throttled).count() >= 5
        })?;
        let of_hog: Vec<_> = events.iter().filter(|event| event.is_of(pid)).collect();
        println!(
            "  waits {}, throttled {}",
            of_hog.len(),
            of_hog.iter().copied().filter(|event| is_throttled(event)).count()
        );
        watch.stop()?;
        // The family throttle tells of them.
        let shown = others.stop()?.events;
        equal("throttled waits by default", shown.iter().filter(is_throttled).count(), 0)?;
        match signal(pid, Signal::Kill) {
            Ok(()) => equal("exit code", container.wait()?, 137),
            Err(error) => bail!(error),
        }
    });
}

#[test]
fn summed_up_by_cgroup() {
    case("the sums in the kernel: a cgroup's waits are all that its tasks waited", || {
        let cgroup = a_cgroup()?;
        until_all_is_told(|| {
            let hogs = stopped_hogs(&cgroup)?;
            let before = hogs.waits()?;
            let path = cgroup.path_text();
            let watch = watch("runq", &["--runq-slower", "1h", "--cgroup", &path])?;
            let hogs = hogs.go_on()?;
            let deadline = Instant::now() + patience(20);
            while hogs.waits()?.since(&before).sum_ns < 200_000_000 {
                ensure!(Instant::now() < deadline, "hogs do not wait for each other");
                thread::yield_now();
            }
            let hogs = hogs.stop()?;
            let truth = hogs.waits()?.since(&before);
            let summed_up = watch.stop()?.report()?.run_queue()?;
            println!("  {summed_up:?}, {} runs", truth.count);
            if summed_up.count < truth.count {
                return Ok(false);
            }
            equal("sum of the waits", summed_up.sum_ns, truth.sum_ns)?;
            Ok(true)
        })
    });
}
