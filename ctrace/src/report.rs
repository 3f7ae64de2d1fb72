//! What happened to each container, summed up for the end. Pure.

mod latency;
mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ctrace_common::totals::{Measure, Total, TotalKey};

use crate::event::{Container, Event, Payload, field::Value};
pub use latency::Latency;

/// Containers that are told apart; what happens to more is summed up as one.
const MAX_CONTAINERS: usize = 4096;
/// What stands for the id of those that are too many; no runtime gives out such an id.
const OTHERS: &str = "";

/// By container.
#[derive(Clone, Debug, Default)]
pub struct Report {
    containers: BTreeMap<String, OfContainer>,
}

/// What happened to one container.
#[derive(Clone, Debug, Default)]
struct OfContainer {
    /// Its name, or the start of its id.
    label: String,
    /// By type.
    events: BTreeMap<&'static str, u64>,
    /// Denials by seccomp, each that was folded into an event counted.
    denials: u64,
    /// Time that its tasks waited for CPU quota: the sum over the CPUs.
    throttled_ns: u64,
    run_queue: Latency,
    /// By device, as the kernel numbers it, and what was done.
    block: BTreeMap<(u32, Op), Latency>,
}

/// What is done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Read,
    Write,
    /// Discards, flushes.
    Other,
}

impl Op {
    const fn name(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Other => "other",
        }
    }
}

impl Report {
    /// Whether nothing happened to any container.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Counts an event that is somebody's.
    pub fn note(&mut self, event: &Event) {
        let container = event.subject.as_ref().and_then(|subject| subject.container());
        let Some(container) = container else { return };
        let of = self.of(container);
        let kind = event.payload.detail().type_name();
        *of.events.entry(kind).or_default() += 1;
        if kind == "seccomp" {
            of.denials += folded(event);
        }
        if let Payload::Throttle(throttle) = &event.payload {
            of.throttled_ns += throttle.throttled_ns;
        }
    }

    /// Adds what the kernel has summed up for a cgroup of a container.
    pub fn add(&mut self, container: &Container, key: &TotalKey, total: &Total) {
        let Ok(measure) = Measure::try_from(key.measure) else { return };
        let of = self.of(container);
        let op = match measure {
            Measure::RunQueue => return of.run_queue.add(total),
            Measure::BlockRead => Op::Read,
            Measure::BlockWrite => Op::Write,
            Measure::BlockOther => Op::Other,
        };
        of.block.entry((key.detail, op)).or_default().add(total);
    }

    /// Adds another report.
    pub fn merge(&mut self, other: Report) {
        for (id, more) in other.containers {
            let OfContainer { label, events, denials, throttled_ns, run_queue, block } = more;
            let of = self.entry(&id, || label);
            for (kind, count) in events {
                *of.events.entry(kind).or_default() += count;
            }
            of.denials += denials;
            of.throttled_ns += throttled_ns;
            of.run_queue.merge(&run_queue);
            for (what, latency) in block {
                of.block.entry(what).or_default().merge(&latency);
            }
        }
    }

    fn of(&mut self, container: &Container) -> &mut OfContainer {
        self.entry(&container.id, || container.label())
    }

    fn entry(&mut self, id: &str, label: impl FnOnce() -> String) -> &mut OfContainer {
        let is_known = self.containers.contains_key(id);
        let has_room = is_known || self.containers.len() < MAX_CONTAINERS;
        let id = if has_room { id } else { OTHERS };
        let new = || OfContainer {
            label: if has_room { label() } else { "(other containers)".to_owned() },
            ..OfContainer::default()
        };
        self.containers.entry(id.to_owned()).or_insert_with(new)
    }
}

/// How many denials an event stands for.
fn folded(event: &Event) -> u64 {
    let Value::Object(members) = event.member("seccomp") else { return 1 };
    let count = members.iter().find_map(|(name, value)| match value {
        Value::Number(count) if name == "count" => Some(*count),
        _ => None,
    });
    count.unwrap_or(1)
}
