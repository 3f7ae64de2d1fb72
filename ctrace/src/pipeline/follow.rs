//! Containers as they start and end: the lifecycle ring alone, with no probe.
//!
//! One thread does all of it. A reader that stalls stops it; then the ring fills, and what was lost
//! is said and made up for by a walk.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use ctrace_common::{Kind, Ring, event::cgroup::CgroupChange};
use tokio::time::Instant;
use zerocopy::FromBytes;

use super::turns::{Change, Happening, Turns};
use super::whose::take_in;
use super::{CARE, at, clock, every, readable};
use crate::attribute::Attributor;
use crate::collect::{self, Losses};
use crate::event::CgroupKey;
use crate::filter::Filter;
use crate::loader::Loaded;
use crate::plan::Limits;

/// What it takes. The attributor has walked after the programs were loaded.
pub struct Follow {
    pub loaded: Loaded,
    pub attributor: Attributor,
    /// Asks about containers only.
    pub filter: Filter,
}

/// Runs until a limit is reached, `stop` resolves, or nobody reads what `say` writes.
///
/// # Errors
/// Where the runtime or `say` fails; a closed pipe is no failure.
pub async fn follow(
    stages: Follow,
    limits: Limits,
    stop: impl Future<Output = ()>,
    mut say: impl FnMut(&[Happening]) -> io::Result<()>,
) -> Result<()> {
    let Follow { loaded, mut attributor, filter } = stages;
    let Loaded { lifecycle, drops, programs: _programs, .. } = loaded;
    let coming_and_going = readable(lifecycle.as_raw_fd())?;
    let metadata = readable(attributor.as_raw_fd())?;
    let turns = Turns::new(&mut attributor);
    let losses = Losses::new(drops);
    let mut follower = Follower { ring: lifecycle, attributor, turns, losses };
    let mut left = limits.count.map(|count| count.get());

    tokio::pin!(stop);
    let deadline = limits.deadline();
    tokio::pin!(deadline);
    let mut care = every(CARE);
    loop {
        let mut is_end = false;
        tokio::select! {
            ready = coming_and_going.readable() => ready?.clear_ready(),
            ready = metadata.readable() => ready?.clear_ready(),
            () = at(follower.turns.due()) => {}
            _ = care.tick() => {}
            () = &mut deadline => is_end = true,
            () = &mut stop => is_end = true,
        }
        let wanted = wanted(follower.take(), &filter, &mut left);
        match said(say(&wanted)).context("cannot write to standard output")? {
            ControlFlow::Continue(()) if !is_end && left != Some(0) => {}
            _ => return Ok(()),
        }
    }
}

/// The ring, and what is made of it.
struct Follower {
    ring: RingBuf<MapData>,
    attributor: Attributor,
    turns: Turns,
    losses: Losses,
}

impl Follower {
    /// All that happened since the last call.
    fn take(&mut self) -> Vec<Happening> {
        let Self { ring, attributor, turns, losses } = self;
        let begun_ns = clock::boot_now();
        let mut changes = Vec::new();
        collect::drain_until(ring, begun_ns, |kind, record| {
            // Processes are of no interest here.
            if kind != Kind::Fork {
                // The object is embedded in the binary: its records are whole.
                let _ = take_in(attributor, kind, record);
                changes.extend(change(kind, record));
            }
        });
        attributor.on_readable();
        let now = Instant::now();
        let mut happenings = Vec::new();
        for change in changes {
            turns.change(attributor, change, now, &mut happenings);
        }
        let mut lost = losses.take(Ring::Lifecycle);
        lost.retain(collect::is_of_cgroups);
        if !lost.is_empty() {
            happenings.extend(lost.into_iter().map(Happening::Lost));
            attributor.walk(begun_ns);
            turns.resync(attributor, begun_ns, now, &mut happenings);
        }
        // Its daemon may be younger than ctrace, with directories of its own.
        attributor.rediscover(begun_ns);
        turns.settle(attributor, now, &mut happenings);
        attributor.forget(begun_ns);
        happenings
    }
}

/// What a record of the lifecycle ring says of a cgroup's directory, if so.
fn change(kind: Kind, record: &[u8]) -> Option<Change> {
    let is_made = match kind {
        Kind::CgroupMkdir => true,
        Kind::CgroupRmdir => false,
        _ => return None,
    };
    let (CgroupChange { header, id, parent: _, hierarchy, level: _ }, _) =
        CgroupChange::read_from_prefix(record).ok()?;
    Some(Change { key: CgroupKey { hierarchy, id }, is_made, time_ns: header.time_ns })
}

/// What of it is asked for. Of starts and ends at most as many as are `left`.
fn wanted(happenings: Vec<Happening>, filter: &Filter, left: &mut Option<u64>) -> Vec<Happening> {
    let is_wanted = |happening: &Happening| match happening {
        Happening::Lost(_) => true,
        Happening::Turn { listed, .. } => filter.wants_one(&listed.container),
    };
    let mut wanted = Vec::new();
    for happening in happenings.into_iter().filter(is_wanted) {
        if let (Happening::Turn { .. }, Some(left)) = (&happening, left.as_mut()) {
            if *left == 0 {
                break;
            }
            *left -= 1;
        }
        wanted.push(happening);
    }
    wanted
}

/// Whether anybody reads.
fn said(result: io::Result<()>) -> io::Result<ControlFlow<()>> {
    match result {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error),
    }
}
