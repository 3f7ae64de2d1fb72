//! Tasks that no signal wakes, seen while they sleep.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use ctrace_tests::block::{Loop, Mapped};
use ctrace_tests::case::case;
use ctrace_tests::docker;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{ctrace, in_vm, patience};
use ctrace_tests::frozen::FileSystem;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

use super::MIB;

const DAY_NS: i128 = 86_400_000_000_000;

fn watch(arguments: &[&str]) -> Result<Watch> {
    let mut command = Command::new(ctrace()?);
    command.args(["watch", "--events", "blocked", "-o", "json"]).args(arguments);
    Watch::start(command)?.attached()
}

/// Waits until a process sleeps and no signal would wake it.
fn until_blocked(pid: u32) -> Result<()> {
    let deadline = Instant::now() + patience(10);
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The state of `rm` on the way to its program's file is D, too, for an instant.
        let is_there = stack(pid)?.iter().any(|function| function == "mnt_want_write");
        if stat.contains(") D ") && is_there {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{pid} does not block: {stat}");
        thread::yield_now();
    }
}

/// Names of the functions that the kernel says a process is in, innermost first.
fn stack(pid: u32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stack"))?;
    let name = |line: &str| {
        let function = line.split_whitespace().nth(1)?.split('+').next()?;
        Some(function.split('.').next()?.to_owned())
    };
    Ok(text.lines().filter_map(name).collect())
}

/// Nanoseconds since midnight, UTC.
fn of_day(event: &Event) -> Result<i128> {
    let time = event.str("/time")?;
    let number = |from: usize, to: usize| -> Result<i128> { Ok(time[from..to].parse()?) };
    let seconds = (number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    Ok(seconds * 1_000_000_000 + number(20, 29)?)
}

fn now_of_day() -> Result<i128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as i128 % DAY_NS)
}

/// When the sleep began, by the event, nanoseconds since midnight.
fn began(event: &Event) -> Result<i128> {
    Ok((of_day(event)? - i128::from(event.u64("/sched/blocked_ns")?)).rem_euclid(DAY_NS))
}

/// From one time of day to a later one.
fn after(earlier: i128, later: i128) -> i128 {
    let apart = (later - earlier).rem_euclid(DAY_NS);
    if apart > DAY_NS / 2 { apart - DAY_NS } else { apart }
}

fn writer(at: &Path) -> Command {
    let mut command = Command::new("/bin/mkdir");
    command.arg(at.join("new")).stdin(Stdio::null());
    command
}

/// Holds an event of a writer to a frozen file system against what the kernel says of it.
fn check(event: &Event, pid: u32) -> Result<()> {
    let seen: Vec<_> = event.array("/sched/stack")?.iter().filter_map(|v| v.as_str()).collect();
    // The module is no part of the name.
    let seen: Vec<_> = seen.iter().filter_map(|name| name.split(' ').next()).collect();
    equal("sched.stack", seen, stack(pid)?)?;
    equal("sched.wait", event.str("/sched/wait")?, "a frozen file system")?;
    equal("sched.state", event.str("/sched/state")?, "uninterruptible")?;
    equal("sched.kernel_thread", event.get("/sched/kernel_thread"), Some(&false.into()))
}

#[test]
fn a_frozen_file_system() {
    case("a writer to a frozen file system: seen while it is stuck, with the time", || {
        let mut frozen = FileSystem::new()?;
        let watch = watch(&[])?;
        frozen.freeze()?;
        let earliest = now_of_day()?;
        let mut child = writer(frozen.path()).spawn()?;
        let pid = child.id();
        until_blocked(pid)?;
        let latest = now_of_day()?;
        // The clocks are read one after the other, which takes its time on an emulated machine.
        let near = if in_vm() { 300_000_000 } else { 20_000_000 };
        let of_writer = |events: &[Event]| {
            let of_writer = events.iter().filter(|event| event.is_of(pid));
            of_writer.cloned().collect::<Vec<_>>()
        };
        let events = watch.events(patience(15), "three events of the writer", |events| {
            of_writer(events).len() >= 3
        })?;
        let mut first = None;
        for event in of_writer(&events) {
            check(&event, pid)?;
            let began = began(&event)?;
            let (early, late) = (after(earliest, began), after(began, latest));
            println!("  {event}\n  began {early} ns after its start, {late} ns before it was seen");
            ensure!(early > -near && late > -near, "the sleep did not begin then");
            let moved = first.map_or(0, |first| after(first, began).abs());
            ensure!(moved < near, "it began {moved} ns from what was said before");
            first.get_or_insert(began);
        }
        frozen.thaw()?;
        ensure!(child.wait()?.success(), "the writer failed");
        let ended = watch.stop()?;
        let times = ended.events.iter().filter(|event| event.is("blocked") && event.is_of(pid));
        let times =
            times.map(|event| event.u64("/sched/blocked_ns")).collect::<Result<Vec<_>>>()?;
        println!("  told after {times:?} ns");
        // At the first look after 1, 2, 4, 8 seconds: never twice between two of them.
        let octaves: Vec<_> = times.iter().map(|ns| (ns / 1_000_000_000).checked_ilog2()).collect();
        ensure!(octaves[0].is_some(), "told too early");
        ensure!(octaves.is_sorted_by(|before, after| before < after), "told too often");
        Ok(())
    });
}

#[test]
fn a_writer_in_a_container() {
    case("a container that writes to a frozen file system: told with its container", || {
        let made = FileSystem::new()?;
        let volume = format!("{}:/frozen", made.path().display());
        let engine = docker::shared()?;
        let options = ["--volume", volume.as_str()];
        let (container, mut gate) = engine.start_gated(&options, "/bin/mkdir /frozen/new")?;
        let pid = container.pid()?;
        let watch = watch(&["--container", &container.name, "--blocked-slower", "500ms"])?;
        // Dropped before the container, which cannot be removed while it is blocked.
        let mut frozen = made;
        frozen.freeze()?;
        gate.open()?;
        let event = watch.event("the blocked container", |event| event.is_of(pid))?;
        println!("  {event}");
        until_blocked(pid)?;
        check(&event, pid)?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        let blocked = event.u64("/sched/blocked_ns")?;
        ensure!(blocked >= 500_000_000, "told after {blocked} ns");
        frozen.thaw()?;
        equal("exit code", container.wait()?, 0)?;
        watch.stop().map(drop)
    });
}

/// Killed on drop.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_suspended_device() {
    case("a reader of a suspended device: seen while it is stuck, with its stack", || {
        let below = Loop::new(4 * MIB)?;
        let mapped = Mapped::new(&format!("0 8192 linear {} 0", below.device().display()))?;
        let watch = watch(&[])?;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", mapped.device()?.display()));
        dd.args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct", "status=none"]);
        // Dropped after the device is resumed: before, it cannot end.
        let mut child = None;
        let suspended = mapped.suspend()?;
        let child = child.insert(Sleeper(dd.stdin(Stdio::null()).spawn()?));
        let pid = child.0.id();
        let event = watch.event("the reader", |event| event.is("blocked") && event.is_of(pid))?;
        println!("  {event}");
        let seen: Vec<_> = event.array("/sched/stack")?.iter().filter_map(|v| v.as_str()).collect();
        let seen: Vec<_> = seen.iter().filter_map(|name| name.split(' ').next()).collect();
        equal("sched.stack", seen, stack(pid)?)?;
        println!("  waits for {}", event.str("/sched/wait")?);
        equal("sched.state", event.str("/sched/state")?, "uninterruptible")?;
        drop(suspended);
        ensure!(child.0.wait()?.success(), "the reader failed");
        watch.stop().map(drop)
    });
}

#[test]
fn nothing_else() {
    case("a sleep that a signal would wake, and a short one: not told", || {
        let watch = watch(&[])?;
        let sleeper = Sleeper(Command::new("/bin/sleep").arg("1000").spawn()?);
        let pid = sleeper.0.id();
        let mut frozen = FileSystem::new()?;
        frozen.freeze()?;
        let mut brief = writer(frozen.path()).spawn()?;
        until_blocked(brief.id())?;
        frozen.thaw()?;
        ensure!(brief.wait()?.success(), "the writer failed");
        // Another one that is told says that all were looked at twice since.
        frozen.freeze()?;
        let mut long = Command::new("/bin/rmdir").arg(frozen.path().join("new")).spawn()?;
        watch.event("the long one", |event| event.is_of(long.id()))?;
        frozen.thaw()?;
        long.wait()?;
        let ended = watch.stop()?;
        let of = |pid| ended.events.iter().filter(|event| event.is_of(pid)).count();
        equal("of the sleeper", of(pid), 0)?;
        equal("of the short one", of(brief.id()), 0)
    });
}
