//! Containers as they start and end: the lifecycle ring alone, with no probe.
//!
//! One thread does all of it. A reader that stalls stops it; then the ring fills, and what was lost
//! is said and made up for by a walk.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use tokio::time::Instant;

use super::turns::{Happening, Turns};
use super::whose::Whose;
use super::{CARE, at, clock, readable};
use crate::attribute::Attributor;
use crate::collect::Losses;
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
    let Loaded { rare: _, lifecycle, bulk: _, drops, places, hooks: _, programs: _programs } =
        loaded;
    let coming_and_going = readable(lifecycle.as_raw_fd())?;
    let metadata = readable(attributor.as_raw_fd())?;
    let mut turns = Turns::new(&mut attributor);
    let mut whose = Whose::new(lifecycle, attributor, places, &Filter::default());
    whose.take_changes();
    let mut losses = Losses::new(drops);
    let mut left = limits.count.map(|count| count.get());

    tokio::pin!(stop);
    let deadline = async {
        match limits.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let mut care = tokio::time::interval(CARE);
    care.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut is_end = false;
        tokio::select! {
            ready = coming_and_going.readable() => ready?.clear_ready(),
            ready = metadata.readable() => ready?.clear_ready(),
            () = at(turns.due()) => {}
            _ = care.tick() => whose.forget(whose.drained_ns),
            () = &mut deadline => is_end = true,
            () = &mut stop => is_end = true,
        }
        let happenings = take(&mut whose, &mut turns, &mut losses);
        let wanted = wanted(happenings, &filter, &mut left);
        match said(say(&wanted)).context("cannot write to standard output")? {
            ControlFlow::Continue(()) if !is_end && left != Some(0) => {}
            _ => return Ok(()),
        }
    }
}

/// All that happened since the last call.
fn take(whose: &mut Whose, turns: &mut Turns, losses: &mut Losses) -> Vec<Happening> {
    whose.catch_up();
    let now = Instant::now();
    let mut happenings = Vec::new();
    for change in whose.take_changes() {
        turns.change(whose.attributor(), change, now, &mut happenings);
    }
    let lost = losses.take();
    if !lost.is_empty() {
        happenings.extend(lost.into_iter().map(Happening::Lost));
        let now_ns = clock::boot_now();
        whose.walk();
        turns.resync(whose.attributor(), now_ns, now, &mut happenings);
    }
    turns.settle(whose.attributor(), now, &mut happenings);
    happenings
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
