//! A byte for each thread: where it is between the programs.

use aya_ebpf::{macros::map, maps::Array};

/// Where a thread is.
pub struct State;

impl State {
    /// Nothing was seen of it yet.
    pub const UNKNOWN: u8 = 0;
    /// In a call that the filters let pass.
    pub const INSIDE: u8 = 1;
    /// Not in a call, as far as was seen.
    pub const OUTSIDE: u8 = 2;
    /// In a call that a filter answers with SIGSYS, which was reported.
    pub const TRAPPED: u8 = 3;
    /// After it: the signal may end the thread.
    pub const SIGNALLED: u8 = 4;
    /// A filter ends it, which was reported.
    pub const KILLED: u8 = 5;
    /// Not in a call; the next one may be its tracer's (`PTRACE_SYSEMU`).
    pub const EMULATED: u8 = 6;
}

/// `PID_MAX_LIMIT` of 64-bit kernels: `include/linux/threads.h`. `kernel.pid_max` may be raised to it
/// at any time.
const PIDS: u32 = 4 << 20;
/// Bytes of a cache line.
const LINE: usize = 64;
const LINES: u32 = PIDS / LINE as u32;

/// Threads whose ids follow each other run at the same time: each has a line of its own. A hash map
/// would cost ten times as much, and 4 MiB are what the ids take.
#[map]
static THREADS: Array<[u8; LINE]> = Array::with_max_entries(LINES, 0);

/// The thread's byte.
#[inline(always)]
fn place(tid: u32) -> Option<*mut u8> {
    let line = THREADS.get_ptr_mut(tid % LINES)?;
    // SAFETY: inside the line.
    Some(unsafe { line.cast::<u8>().add((tid / LINES) as usize % LINE) })
}

#[inline(always)]
pub fn get(tid: u32) -> u8 {
    // SAFETY: a byte of the map.
    place(tid).map_or(State::UNKNOWN, |place| unsafe { *place })
}

#[inline(always)]
pub fn set(tid: u32, state: u8) {
    if let Some(place) = place(tid) {
        // SAFETY: a byte of the map.
        unsafe { *place = state };
    }
}

/// Sets the state; the one before.
#[inline(always)]
pub fn replace(tid: u32, state: u8) -> u8 {
    let Some(place) = place(tid) else { return State::UNKNOWN };
    // SAFETY: a byte of the map, which nobody else changes while the thread runs the program.
    unsafe { place.replace(state) }
}
