//! A load on the kernel: nanoseconds of one operation, on standard output. `cargo xtask bench watch`
//! runs it bare, under programs that do nothing, and under tracers.
//!
//! `load getppid|pipes|spawn` runs a load. `load idle TRACEPOINT…` puts programs that do nothing on raw
//! tracepoints, says `attached`, and stays until standard input ends.

use std::{
    env,
    io::{self, Read, Write},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ctrace::kernel;
use rustix::thread::{CpuSet, sched_setaffinity};

/// System calls that do next to nothing.
const CALLS: u32 = 3_000_000;
/// Bytes sent back and forth between two threads of one CPU: two switches each.
const ROUND_TRIPS: u32 = 150_000;
/// Processes started and waited for.
const PROCESSES: u32 = 500;

fn main() {
    // Cargo adds `--bench`.
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let (operations, took) = match args.first().map(String::as_str) {
        Some("getppid") => (CALLS, getppid()),
        Some("pipes") => (ROUND_TRIPS, pipes()),
        Some("spawn") => (PROCESSES, spawn()),
        Some("idle") => return idle(&args[1..]),
        // `cargo bench` runs every benchmark without a word.
        None => return,
        Some(name) => panic!("no load is named {name}"),
    };
    println!("{}", took.as_nanos() as f64 / f64::from(operations));
}

fn idle(tracepoints: &[String]) {
    let tracepoints: Vec<&str> = tracepoints.iter().map(String::as_str).collect();
    let idle = kernel::idle(&tracepoints).expect("programs that do nothing attach");
    println!("attached");
    io::stdin().read_to_end(&mut Vec::new()).expect("standard input ends");
    drop(idle);
}

fn getppid() -> Duration {
    on_one_cpu();
    let call = |_| {
        // SAFETY: the call has no preconditions.
        unsafe { libc::syscall(libc::SYS_getppid) };
    };
    (0..CALLS / 10).for_each(call);
    let started = Instant::now();
    (0..CALLS).for_each(call);
    started.elapsed()
}

fn pipes() -> Duration {
    on_one_cpu();
    let (mut there, mut from_here) = io::pipe().expect("a pipe");
    let (mut here, mut from_there) = io::pipe().expect("a pipe");
    // Inherits the CPU.
    let other = thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() {
            from_there.write_all(&byte).expect("the other side reads");
        }
    });
    let mut round_trips = |number: u32| {
        let mut byte = [0];
        for _ in 0..number {
            from_here.write_all(&byte).expect("the other side reads");
            here.read_exact(&mut byte).expect("the other side writes");
        }
    };
    round_trips(ROUND_TRIPS / 10);
    let started = Instant::now();
    round_trips(ROUND_TRIPS);
    let took = started.elapsed();
    drop(from_here);
    other.join().expect("it ends with the pipe");
    took
}

fn spawn() -> Duration {
    let run = || {
        let status = Command::new("/bin/true").status().expect("true is there");
        assert!(status.success());
    };
    (0..PROCESSES / 10).for_each(|_| run());
    let started = Instant::now();
    (0..PROCESSES).for_each(|_| run());
    started.elapsed()
}

/// Stays on the first CPU: the clocks of two differ.
fn on_one_cpu() {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).expect("there is a first CPU");
}
