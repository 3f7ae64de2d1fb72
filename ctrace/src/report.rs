//! What happened to each container and outside of them, summed up for the end. Pure.

mod latency;
mod render;
mod schema;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ctrace_common::totals::{Measure, Total, TotalKey};

use crate::event::{Attribution, Event, Payload, Via, field::Value};
pub use latency::Latency;
pub use schema::schema;

/// Containers that are told apart; what happens to more is summed up as one.
const MAX_CONTAINERS: usize = 4096;

/// By whose it is.
#[derive(Clone, Debug, Default)]
pub struct Report {
    parts: BTreeMap<Owner, Part>,
}

/// Whose something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// The container of this id.
    Container(String),
    /// Containers that are too many.
    OtherContainers,
    /// No container's.
    Host,
    /// It is not known whether it is a container's.
    Unknown,
}

/// What happened there.
#[derive(Clone, Debug, Default)]
struct Part {
    /// The name of the container, or the start of its id: as it was known at last.
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
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Counts an event that is somebody's.
    pub fn note(&mut self, event: &Event) {
        let Some(subject) = &event.subject else { return };
        let part = self.part_of(&subject.attribution);
        let kind = event.payload.detail().type_name();
        *part.events.entry(kind).or_default() += 1;
        if kind == "seccomp" {
            part.denials += folded(event);
        }
        if let Payload::Throttle(throttle) = &event.payload {
            part.throttled_ns += throttle.throttled_ns;
        }
    }

    /// Adds what the kernel has summed up for a cgroup.
    pub fn add(&mut self, attribution: &Attribution, key: &TotalKey, total: &Total) {
        let Ok(measure) = Measure::try_from(key.measure) else { return };
        let part = self.part_of(attribution);
        let op = match measure {
            Measure::RunQueue => return part.run_queue.add(total),
            Measure::BlockRead => Op::Read,
            Measure::BlockWrite => Op::Write,
            Measure::BlockOther => Op::Other,
        };
        part.block.entry((key.detail, op)).or_default().add(total);
    }

    /// Adds another report.
    pub fn merge(&mut self, other: Report) {
        for (owner, more) in other.parts {
            let Part { label, events, denials, throttled_ns, run_queue, block } = more;
            let part = self.part(owner, &label);
            for (kind, count) in events {
                *part.events.entry(kind).or_default() += count;
            }
            part.denials += denials;
            part.throttled_ns += throttled_ns;
            part.run_queue.merge(&run_queue);
            for (what, latency) in block {
                part.block.entry(what).or_default().merge(&latency);
            }
        }
    }

    fn part_of(&mut self, attribution: &Attribution) -> &mut Part {
        match (&attribution.container, attribution.via) {
            (Some(container), _) => {
                self.part(Owner::Container(container.id.clone()), &container.label())
            }
            (None, Via::Unknown) => self.part(Owner::Unknown, "(unknown)"),
            (None, _) => self.part(Owner::Host, "(host)"),
        }
    }

    fn part(&mut self, owner: Owner, label: &str) -> &mut Part {
        let is_full = self.parts.len() >= MAX_CONTAINERS;
        let is_one_more =
            is_full && matches!(owner, Owner::Container(_)) && !self.parts.contains_key(&owner);
        let (owner, label) = match is_one_more {
            true => (Owner::OtherContainers, "(other containers)"),
            false => (owner, label),
        };
        let part = self.parts.entry(owner).or_default();
        if part.label != label {
            label.clone_into(&mut part.label);
        }
        part
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
