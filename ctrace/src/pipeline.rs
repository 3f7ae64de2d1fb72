//! Wires the stages: rings -> decode -> attribute -> filter -> sink.
//!
//! One thread drains the rings and does all up to the filter; a second renders and writes, so that a
//! reader that stalls does not stop the drain. The channel between them is bounded, and what does
//! not fit is counted.

mod awaited;
mod follow;
mod outlet;
mod turns;
mod whose;

use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::AsRawFd,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use ctrace_common::{Kind, Place, Ring, totals::Untotalled};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::Instant,
};

use crate::{
    attribute::{Attributor, CgroupFs},
    collect::{self, Gap, Losses, Misses, Totals},
    enrich::{self, Enricher},
    event::{Container, Event, Lost, Payload, Subject},
    filter::Filter,
    kernel::{CgroupLayout, clock},
    loader::Loaded,
    output::{Output, Written},
    plan::Limits,
    probes::{Decoder, Living},
    report::Report,
    verdict::Verdicts,
};
pub use follow::{Follow, follow};
use outlet::{CHANNEL, Outlet, Worth};
pub use turns::Happening;
use whose::Whose;

/// How long an event waits for its container's name, which is written about when the container
/// starts.
const NAME_WAIT: Duration = Duration::from_millis(250);
/// How long the end of a process waits for the OOM kill that it may be of: the kernel sends the
/// signal, and tells of the kill while its victim already ends on another CPU.
const VERDICT_WAIT: Duration = Duration::from_millis(50);
/// Events that wait for what a filter asks about their container; more are judged without.
const MAX_HELD: usize = 4096;
/// How often what is gone is forgotten, and lost records are made up for.
const CARE: Duration = Duration::from_secs(1);
/// How far the records of a ring that is never empty may be out of order, nanoseconds.
const DISORDER_NS: u64 = 1_000_000_000;

/// What the pipeline is made of.
pub struct Stages {
    pub loaded: Loaded,
    pub attributor: Attributor,
    /// Asks the runtimes' sockets for what is on no disk, where the user wants it.
    pub enrichment: Option<Enrichment>,
    pub filter: Filter,
    pub output: Output,
}

/// Who asks, and where the answers come.
pub type Enrichment = (Enricher, mpsc::Receiver<Vec<Container>>);

/// What went through.
#[derive(Debug, Default)]
pub struct Summary {
    /// Events written, by type.
    pub events: BTreeMap<&'static str, u64>,
    /// Records lost, by ring and kind.
    pub lost: BTreeMap<(&'static str, &'static str), u64>,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Times that all metadata was read again, because inotify's queue was full.
    pub metadata_overflows: u64,
    /// Files of metadata that could not be read or parsed.
    pub metadata_unreadable: u64,
    /// How asking the runtimes went.
    pub enrichment: Vec<enrich::Report>,
    /// What happened to each container and outside of them.
    pub report: Report,
    /// Latencies that the kernel had no room to sum up.
    pub totals_lost: u64,
    /// Waits for a CPU whose ends the kernel's tracepoint left out.
    pub waits_untold: u64,
}

/// Runs until a limit is reached, `stop` resolves, or the output has no reader any more.
///
/// # Errors
/// Where the runtime or the output fails; a closed pipe is no failure.
pub async fn run(
    stages: Stages,
    limits: Limits,
    stop: impl Future<Output = ()>,
) -> Result<Summary> {
    let Stages { loaded, attributor, enrichment, filter, output } = stages;
    let Loaded {
        rare,
        lifecycle,
        bulk,
        drops,
        places,
        totals,
        misses,
        hooks: _,
        decoders,
        programs,
    } = loaded;
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let writer = output.spawn(receiver, limits.count).context("cannot start the writer")?;
    let (mut rare, mut bulk) = (readable(rare)?, readable(bulk)?);
    let coming_and_going = readable(lifecycle.as_raw_fd())?;
    let metadata = readable(attributor.as_raw_fd())?;
    let (enricher, mut told) = enrichment.unzip();
    let mut whose = Whose::new(lifecycle, attributor, places, enricher, &filter);
    // The hooks are in place: what the walk does not see, the ring tells.
    whose.walk();
    let mut router = Router {
        decoders,
        whose,
        filter,
        outlet: Outlet::new(sender.clone()),
        losses: Losses::new(drops),
        rare_gap: Gap::default(),
        bulk_gap: Gap::default(),
        totals,
        misses,
        turnover: 0,
        verdicts: Verdicts::default(),
        held: VecDeque::new(),
        unjudged: 0,
        is_tree_lossy: false,
        rare_ns: 0,
        bulk_ns: 0,
        summary: Summary::default(),
    };

    tokio::pin!(stop);
    let deadline = limits.deadline();
    tokio::pin!(deadline);
    let mut care = every(CARE);
    loop {
        let held_until = router.held_until();
        tokio::select! {
            ready = rare.readable_mut() => {
                let mut ready = ready?;
                let (drained, is_empty) = router.drain(ready.get_inner_mut(), None);
                router.rare_ns = drained;
                if is_empty {
                    ready.clear_ready();
                }
            }
            ready = bulk.readable_mut() => {
                let mut ready = ready?;
                let (drained, is_empty) =
                    router.drain(ready.get_inner_mut(), Some(rare.get_mut()));
                router.bulk_ns = drained;
                if is_empty {
                    ready.clear_ready();
                }
            }
            ready = coming_and_going.readable() => {
                ready?.clear_ready();
                router.whose.catch_up();
            }
            ready = metadata.readable() => {
                ready?.clear_ready();
                router.whose.catch_up();
                router.release(false);
            }
            containers = batch(&mut told) => match containers {
                Some(containers) => {
                    router.whose.tell(containers);
                    router.release(false);
                }
                None => told = None,
            },
            () = at(held_until) => router.release(false),
            _ = care.tick() => {
                router.rare_ns = router.drain_all(rare.get_mut(), None);
                router.bulk_ns = router.drain_all(bulk.get_mut(), Some(rare.get_mut()));
                router.tick(false);
                router.care();
            }
            () = sender.closed() => break,
            () = &mut deadline => break,
            () = &mut stop => break,
        }
    }
    // What happened before the end belongs to it; nothing is added while it is taken out.
    router.note_misses();
    drop(programs);
    router.drain_all(rare.get_mut(), None);
    router.drain_all(bulk.get_mut(), Some(rare.get_mut()));
    router.show_gaps();
    router.tick(true);
    router.release(true);
    router.report_unjudged();
    router.sum_up(true);
    drop((rare, bulk));
    router.outlet.flush();
    if router.outlet.lost() > 0 {
        router.summary.lost.insert(("output", "event"), router.outlet.lost());
    }
    let mut summary = std::mem::take(&mut router.summary);
    router.whose.sum_up(&mut summary);
    // The writer ends when no sender is left.
    drop((router, sender));
    let Written { events, report } = writer.join()?;
    summary.events = events;
    summary.report.merge(report);
    Ok(summary)
}

/// Registers a file descriptor to be waited for.
fn readable<T: AsRawFd>(inner: T) -> Result<AsyncFd<T>> {
    // SAFETY: the rings own their file descriptors, and the attributor, whose descriptor is passed
    // by number, lives until the loop has ended.
    unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
        .context("cannot wait for events")
}

/// Ticks at once, and then when the period has passed since the last tick was taken.
fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Waits until then; for ever where there is nothing to wait for.
async fn at(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What the runtimes said; waits for ever where they are not asked.
async fn batch(told: &mut Option<mpsc::Receiver<Vec<Container>>>) -> Option<Vec<Container>> {
    match told {
        Some(told) => told.recv().await,
        None => std::future::pending().await,
    }
}

/// An event that waits for its container's name or pod, or for its cause.
struct Held {
    event: Event,
    worth: Worth,
    until: Instant,
    /// When it happened, nanoseconds since boot.
    boot_ns: u64,
    /// Its cause may still come.
    is_open: bool,
}

/// All between the rings and the writer.
struct Router {
    decoders: Vec<Box<dyn Decoder>>,
    whose: Whose,
    filter: Filter,
    outlet: Outlet,
    losses: Losses,
    rare_gap: Gap,
    bulk_gap: Gap,
    totals: Totals,
    misses: Misses,
    /// [`Living::generation`] when the totals of what is gone were taken out.
    turnover: u64,
    /// Why processes end.
    verdicts: Verdicts,
    /// In the order that they came in.
    held: VecDeque<Held>,
    /// Events that did not fit `held` and are left out because of it, not yet reported.
    unjudged: u64,
    /// Records of cgroups that came or went were lost.
    is_tree_lossy: bool,
    /// All records of the ring before this time, nanoseconds since boot, are taken out.
    rare_ns: u64,
    bulk_ns: u64,
    summary: Summary,
}

impl Router {
    /// Takes a batch out of a ring; returns the time that the ring is drained to, and whether it is
    /// empty. What the ends of processes are judged by is in the ring `rare`; absent: that is the ring.
    fn drain(
        &mut self,
        ring: &mut RingBuf<MapData>,
        mut rare: Option<&mut RingBuf<MapData>>,
    ) -> (u64, bool) {
        let begun = clock::boot_now();
        let mut last = 0;
        let is_empty = collect::drain(ring, |kind, record| {
            last = collect::boot_ns(record);
            if let (Kind::Exit, Some(rare)) = (kind, &mut rare) {
                collect::drain_until(rare, last, |kind, record| self.record(kind, record));
            }
            self.record(kind, record);
        });
        let which = if rare.is_some() { Ring::Bulk } else { Ring::Rare };
        for lost in self.losses.take(Ring::Lifecycle) {
            self.is_tree_lossy |= collect::is_of_cgroups(&lost);
            self.lost(lost);
        }
        let gap = if which == Ring::Rare { &mut self.rare_gap } else { &mut self.bulk_gap };
        let losses = &mut self.losses;
        for lost in gap.after(is_empty, last, clock::boot_now(), || losses.take(which)) {
            self.lost(lost);
        }
        (if is_empty { begun } else { last.saturating_sub(DISORDER_NS) }, is_empty)
    }

    /// Takes all out of a ring that was in it at the beginning; returns the time that it is drained
    /// to.
    fn drain_all(
        &mut self,
        ring: &mut RingBuf<MapData>,
        mut rare: Option<&mut RingBuf<MapData>>,
    ) -> u64 {
        let begun = clock::boot_now();
        loop {
            let (drained, is_empty) = self.drain(ring, rare.as_deref_mut());
            // `drained` allows for disorder, which would be waiting a second for records to come.
            if is_empty || drained + DISORDER_NS >= begun {
                return drained;
            }
        }
    }

    fn record(&mut self, kind: Kind, record: &[u8]) {
        if kind == Kind::CgroupPath {
            return self.whose.learn(record);
        }
        let decoder = self.decoders.iter_mut().find(|d| d.kinds().contains(&kind));
        let decoded = decoder.map(|decoder| (decoder.decode(record), decoder));
        let Some((Ok((mut subject, mut payload)), decoder)) = decoded else {
            self.summary.undecoded += 1;
            return;
        };
        let now = collect::boot_ns(record);
        self.whose.attribute(&mut subject, payload.detail_mut(), now);
        decoder.complete(&subject, &mut payload);
        self.verdicts.note(&subject, &payload, now);
        if decoder.shows(&subject, &payload) {
            let worth = Worth::of(kind.ring(), &payload);
            self.attributed(subject, payload, worth, now);
        }
    }

    /// Takes in the events that no record tells of.
    fn tick(&mut self, is_end: bool) {
        let now = clock::boot_now();
        let mut events = Vec::new();
        for decoder in &mut self.decoders {
            events.extend(decoder.tick(now));
            events.extend(decoder.look(&mut self.whose, now, is_end));
        }
        for (mut subject, mut payload) in events {
            if let Payload::Lost(lost) = payload {
                self.lost(lost);
                continue;
            }
            self.whose.attribute(&mut subject, payload.detail_mut(), now);
            let worth = Worth::of(Ring::Rare, &payload);
            self.attributed(subject, payload, worth, now);
        }
    }

    /// Sends an event that is wanted, or holds it while its container may still get a name. `now`:
    /// nanoseconds since boot.
    fn attributed(&mut self, subject: Subject, mut payload: Payload, worth: Worth, now: u64) {
        let is_open = self.verdicts.complete(&subject, &mut payload, now);
        let event = Event { time_ns: clock::wall_of_boot(now), subject: Some(subject), payload };
        let attributions = event.about().map(|subject| &*subject.attribution);
        let name_wait = attributions.filter_map(|one| self.whose.wait(one)).max();
        let wait = name_wait.max(is_open.then_some(VERDICT_WAIT));
        match wait {
            Some(wait) if self.held.len() < MAX_HELD => {
                let until = Instant::now() + wait;
                self.held.push_back(Held { event, worth, until, boot_ns: now, is_open });
            }
            _ if self.filter.wants(&event) => self.outlet.send(event, worth),
            // Nobody knows whether it was asked for.
            _ if name_wait.is_some() && self.filter.wants_a_process(&event) => self.unjudged += 1,
            _ => {}
        }
    }

    /// When an event has waited long enough.
    fn held_until(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    /// Sends the events that have waited long enough, or whose container and cause are known by now;
    /// all where it is the end.
    fn release(&mut self, is_end: bool) {
        let (now, boot_now) = (Instant::now(), clock::boot_now());
        for mut held in std::mem::take(&mut self.held) {
            let Event { subject, payload, .. } = &mut held.event;
            let Some(subject) = subject else { continue };
            self.whose.attribute(subject, payload.detail_mut(), boot_now);
            if held.is_open {
                held.is_open = self.verdicts.complete(subject, payload, held.boot_ns);
            }
            let mut about = held.event.about();
            let is_nameless = about.any(|one| self.whose.wait(&one.attribution).is_some());
            drop(about);
            if (held.is_open || is_nameless) && held.until > now && !is_end {
                self.held.push_back(held);
            } else if self.filter.wants(&held.event) {
                self.outlet.send(held.event, held.worth);
            }
        }
    }

    /// Makes up for lost records, and forgets what is gone.
    fn care(&mut self) {
        self.whose.catch_up();
        self.note_misses();
        if std::mem::take(&mut self.is_tree_lossy) {
            self.whose.walk();
        }
        self.whose.rediscover();
        self.whose.decide();
        self.report_unjudged();
        self.sum_up(false);
        self.whose.forget(self.whose.drained_ns.min(self.rare_ns).min(self.bulk_ns));
    }

    /// Takes in what the kernel has summed up for cgroups that are gone, while it is known whose they
    /// were; for all where it is the end.
    fn sum_up(&mut self, is_end: bool) {
        let turnover = self.whose.generation();
        if !is_end && std::mem::replace(&mut self.turnover, turnover) == turnover {
            return;
        }
        // They are of cgroups, and tell nothing of single processes.
        let is_wanted = self.filter.pids.is_empty();
        let (whose, totals) = (&mut self.whose, &mut self.totals);
        for (key, total) in totals.take(|place| is_end || is_gone(whose, place)) {
            if let Some(attribution) = whose.of_wanted_place(&key.place).filter(|_| is_wanted) {
                self.summary.report.add(&attribution, &key, &total);
            }
        }
        self.summary.totals_lost = totals.lost(Untotalled::NoRoom);
        self.summary.waits_untold = totals.lost(Untotalled::Untold);
    }

    /// Shows the losses that are left at the end.
    fn show_gaps(&mut self) {
        let Self { rare_gap, bulk_gap, losses, .. } = self;
        let counted = [Ring::Rare, Ring::Bulk].map(|ring| losses.take(ring));
        let left = [rare_gap.take(), bulk_gap.take()].into_iter().chain(counted);
        left.flatten().collect::<Vec<_>>().into_iter().for_each(|lost| self.lost(lost));
    }

    fn note_misses(&mut self) {
        self.misses.take().into_iter().for_each(|lost| self.lost(lost));
    }

    fn lost(&mut self, lost: Lost) {
        *self.summary.lost.entry((lost.ring, lost.kind)).or_default() += lost.count;
        self.outlet.send(about_ctrace(lost), Worth::Precious);
    }

    /// Reports the events that nobody could judge, once in a while and not for each.
    fn report_unjudged(&mut self) {
        let count = std::mem::take(&mut self.unjudged);
        if count > 0 {
            self.lost(Lost { ring: "held", kind: "event", count });
        }
    }
}

/// What is of no cgroup stays.
fn is_gone(whose: &Whose, place: &Place) -> bool {
    place.id != 0 && !whose.lives(place)
}

fn about_ctrace(lost: Lost) -> Event {
    Event { time_ns: clock::wall_now(), subject: None, payload: Payload::Lost(lost) }
}

/// The attributor asks the host's hierarchies for what no record told it.
impl CgroupFs for CgroupLayout {
    fn path_of_id(&self, hierarchy: u32, id: u64) -> Option<String> {
        CgroupLayout::path_of_id(self, hierarchy, id)
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        CgroupLayout::mounts(self).map(|(id, path)| (id, path.to_owned())).collect()
    }
}
