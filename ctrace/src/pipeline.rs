//! Wires the stages: rings -> decode -> attribute -> filter -> sink.
//!
//! One thread drains the rings and does all up to the filter; a second renders and writes, so that a
//! reader that stalls does not stop the drain. The channel between them is bounded, and what does
//! not fit is counted.

use std::{collections::BTreeMap, os::fd::AsRawFd, path::PathBuf, time::Instant};

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use ctrace_common::{Kind, event::cgroup::CgroupPath};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use zerocopy::FromBytes;

use crate::{
    attribute::{Attributor, CgroupFs},
    collect::{self, Losses},
    event::{Cgroup, CgroupKey, Event, Lost, Payload, Subject},
    filter::Filter,
    kernel::{CgroupLayout, clock},
    loader::Loaded,
    output::{Output, Written},
    plan::Limits,
    probes::Decoder,
};

/// Events that wait for the writer.
const CHANNEL: usize = 4096;

/// What the pipeline is made of.
pub struct Stages {
    pub loaded: Loaded,
    pub decoders: Vec<Box<dyn Decoder>>,
    pub attributor: Attributor,
    pub filter: Filter,
    pub output: Output,
}

/// What went through.
#[derive(Debug, Default)]
pub struct Summary {
    /// Events written, by type.
    pub events: BTreeMap<&'static str, u64>,
    /// Records lost, by ring and kind.
    pub lost: BTreeMap<(&'static str, &'static str), u64>,
    /// Records that could not be decoded.
    pub undecoded: u64,
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
    let Stages { loaded, decoders, attributor, filter, output } = stages;
    let Loaded { rare, bulk, drops, hooks: _, programs } = loaded;
    let (sender, receiver) = mpsc::channel(CHANNEL);
    let writer = output.spawn(receiver, limits.count).context("cannot start the writer")?;
    let (mut rare, mut bulk) = (readable(rare)?, readable(bulk)?);
    let metadata = readable(attributor.as_raw_fd())?;
    let mut router = Router {
        decoders,
        attributor,
        filter,
        sender: sender.clone(),
        losses: Losses::new(drops),
        unsent: 0,
        summary: Summary::default(),
    };

    tokio::pin!(stop);
    let deadline = async {
        match limits.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            ready = rare.readable_mut() => {
                let mut ready = ready?;
                if router.drain(ready.get_inner_mut()) {
                    ready.clear_ready();
                }
            }
            ready = bulk.readable_mut() => {
                let mut ready = ready?;
                if router.drain(ready.get_inner_mut()) {
                    ready.clear_ready();
                }
            }
            ready = metadata.readable() => {
                router.attributor.on_readable();
                ready?.clear_ready();
            }
            () = sender.closed() => break,
            () = &mut deadline => break,
            () = &mut stop => break,
        }
    }
    // What happened before the end belongs to it.
    while !router.drain(rare.get_mut()) {}
    while !router.drain(bulk.get_mut()) {}
    drop((rare, bulk, programs));
    router.flush_unsent();
    let mut summary = std::mem::take(&mut router.summary);
    // The writer ends when no sender is left.
    drop((router, sender));
    let Written { events } = writer.join()?;
    summary.events = events;
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

/// All between the rings and the writer.
struct Router {
    decoders: Vec<Box<dyn Decoder>>,
    attributor: Attributor,
    filter: Filter,
    sender: mpsc::Sender<Event>,
    losses: Losses,
    /// Events that the channel had no room for, not yet reported.
    unsent: u64,
    summary: Summary,
}

impl Router {
    /// Takes a batch out of a ring; returns whether the ring is empty.
    fn drain(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        let empty = collect::drain(ring, |kind, record| self.record(kind, record));
        for lost in self.losses.take() {
            self.lost(lost);
        }
        empty
    }

    fn record(&mut self, kind: Kind, record: &[u8]) {
        if kind == Kind::CgroupPath {
            if learn(&mut self.attributor, record).is_none() {
                self.summary.undecoded += 1;
            }
            return;
        }
        let Some(decoder) = self.decoders.iter_mut().find(|d| d.kinds().contains(&kind)) else {
            self.summary.undecoded += 1;
            return;
        };
        let Ok((mut subject, mut payload)) = decoder.decode(record) else {
            self.summary.undecoded += 1;
            return;
        };
        // A container's metadata may have been written a moment before its first event.
        self.attributor.on_readable();
        attribute(&mut self.attributor, &mut subject);
        let detail = payload.detail_mut();
        for subject in detail.subjects_mut() {
            attribute(&mut self.attributor, subject);
        }
        for cgroup in detail.cgroups_mut() {
            name(&mut self.attributor, cgroup);
        }
        decoder.complete(&subject, &mut payload);
        let time_ns = clock::wall_of_boot(boot_ns(record));
        let event = Event { time_ns, subject: Some(subject), payload };
        if self.filter.wants(&event) {
            self.send(event);
        }
    }

    fn lost(&mut self, lost: Lost) {
        *self.summary.lost.entry((lost.ring, lost.kind)).or_default() += lost.count;
        self.send(about_ctrace(lost));
    }

    /// Hands an event to the writer, or counts it.
    fn send(&mut self, event: Event) {
        self.flush_unsent();
        if self.unsent > 0 || self.sender.try_send(event).is_err() {
            self.unsent += 1;
        }
    }

    /// Reports the events that did not fit, where the gap is.
    fn flush_unsent(&mut self) {
        if self.unsent == 0 || self.sender.is_closed() {
            return;
        }
        let lost = Lost { ring: "output", kind: "event", count: self.unsent };
        if self.sender.try_send(about_ctrace(lost)).is_ok() {
            *self.summary.lost.entry(("output", "event")).or_default() += self.unsent;
            self.unsent = 0;
        }
    }
}

fn about_ctrace(lost: Lost) -> Event {
    Event { time_ns: clock::wall_now(), subject: None, payload: Payload::Lost(lost) }
}

/// When the record was made, nanoseconds since boot.
fn boot_ns(record: &[u8]) -> u64 {
    ctrace_common::Header::read_from_prefix(record).map_or(0, |(header, _)| header.time_ns)
}

/// Teaches the attributor the path that a record holds; nothing where the record is cut short.
fn learn(attributor: &mut Attributor, record: &[u8]) -> Option<()> {
    let (path, names) = CgroupPath::read_from_prefix(record).ok()?;
    let ids = path.ids.get(..path.depth as usize)?;
    let names = names.split(|byte| *byte == 0);
    attributor.learn(path.hierarchy, ids, names, path.truncated != 0);
    Some(())
}

/// Fills in container, unit and path of a subject.
fn attribute(attributor: &mut Attributor, subject: &mut Subject) {
    let keys: Vec<CgroupKey> = subject.cgroups().collect();
    let attribution = attributor.resolve(&keys, Instant::now());
    subject.container = attribution.container;
    subject.outer = attribution.outer;
    subject.unit = attribution.unit;
    subject.via = attribution.via;
    match &mut subject.cgroup {
        Some(cgroup) => name(attributor, cgroup),
        None => {
            subject.cgroup = attribution.path.map(|(key, path)| Cgroup { key, path: Some(path) });
        }
    }
}

fn name(attributor: &mut Attributor, cgroup: &mut Cgroup) {
    cgroup.path = attributor.path(cgroup.key);
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
