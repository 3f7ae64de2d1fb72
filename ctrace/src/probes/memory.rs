//! Cgroups that reach a limit of their memory and live: `memory.events.local` of v2,
//! `memory.failcnt` of v1.

use aya::Ebpf;

use super::{
    Asked, Decoder, Probe, ProbePlan, Unsupported,
    sampled::{Controller, Counted, Place},
    throttle::{plan, sampler},
};
use crate::{
    event::{self, Payload},
    kernel::{
        Facts, Version,
        limits::{self, Kept, Stalled},
    },
};

pub struct Memory;

impl Probe for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn doc(&self) -> &'static str {
        "cgroups that reach a limit of their memory and have to give pages back"
    }

    fn events(&self) -> &'static [&'static str] {
        &["memory_pressure"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        let controller = Controller::of(&facts.cgroups, "memory");
        let file = match controller.map(|controller| controller.version) {
            Some(Version::V1) => "memory.failcnt",
            _ => "memory.events.local",
        };
        plan(facts, "memory", file, "limits of memory that are reached, once a second")
    }

    fn decoder(
        &self,
        facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        sampler::<Limits>(facts, "memory")
    }
}

struct Limits;

/// The files that hold [`Hits`].
enum Counters {
    V1 { failcnt: Kept },
    V2 { events: Kept, pressure: Option<Kept> },
}

/// Counters of a memory cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hits {
    high: Option<u64>,
    max: u64,
    stalled: Option<Stalled>,
}

/// The limits' files of a version: `memory.high` if there is such, and the hard one.
fn limits_of(place: &Place) -> (Option<u64>, Option<u64>) {
    let limit = |file| limits::read(place.directory, file, limits::parse_memory_limit);
    match place.version {
        Version::V1 => (None, limit("memory.limit_in_bytes")),
        Version::V2 => (limit("memory.high"), limit("memory.max")),
    }
}

impl Counted for Limits {
    type Counts = Hits;
    type Files = Counters;

    fn is_limited(place: &Place) -> bool {
        let (high, max) = limits_of(place);
        high.is_some() || max.is_some()
    }

    fn open(place: &Place) -> Option<Counters> {
        let open = |file| Kept::open(place.directory, file);
        Some(match place.version {
            Version::V1 => Counters::V1 { failcnt: open("memory.failcnt")? },
            Version::V2 => {
                let pressure = open("memory.pressure");
                Counters::V2 { events: open("memory.events.local")?, pressure }
            }
        })
    }

    fn read(files: &Counters) -> Option<Hits> {
        match files {
            Counters::V1 { failcnt } => {
                Some(Hits { high: None, max: failcnt.read(limits::parse_number)?, stalled: None })
            }
            Counters::V2 { events, pressure } => {
                let stalled = pressure.as_ref().and_then(|file| file.read(limits::parse_pressure));
                events.read(|text| {
                    let count = |name| limits::keyed(text, name);
                    Some(Hits { high: Some(count("high")?), max: count("max")?, stalled })
                })
            }
        }
    }

    fn event(before: Hits, now: Hits, span_ns: u64, place: &Place) -> Option<Payload> {
        let since = |before: u64, now: u64| now.saturating_sub(before);
        let high_events = now.high.map(|high| since(before.high.unwrap_or(0), high));
        let max_events = since(before.max, now.max);
        if high_events.unwrap_or(0) == 0 && max_events == 0 {
            return None;
        }
        let (high_bytes, limit_bytes) = limits_of(place);
        let usage = match place.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        };
        let old = before.stalled.unwrap_or_default();
        Some(Payload::MemoryPressure(event::MemoryPressure {
            high_events,
            max_events,
            high_bytes,
            limit_bytes,
            usage_bytes: limits::read(place.directory, usage, limits::parse_number),
            some_ns: now.stalled.map(|stalled| since(old.some_ns, stalled.some_ns)),
            full_ns: now.stalled.map(|stalled| since(old.full_ns, stalled.full_ns)),
            span_ns,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_what_came_since() {
        let directory = tempfile::tempdir().expect("a place for files");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
        };
        let place = Place { directory: directory.path(), version: Version::V2, path: "/a" };
        write("memory.max", "max\n");
        write("memory.high", "max\n");
        assert!(!Limits::is_limited(&place));
        write("memory.high", "1048576\n");
        assert!(Limits::is_limited(&place));
        write("memory.events.local", "low 0\nhigh 5\nmax 0\noom 0\n");
        let read = || Limits::read(&Limits::open(&place).expect("files")).expect("counters");
        let before = read();
        assert_eq!(before, Hits { high: Some(5), max: 0, stalled: None });
        write("memory.events.local", "low 0\nhigh 9\nmax 0\noom 0\n");
        write("memory.pressure", "some total=7\nfull total=3\n");
        write("memory.current", "1048576\n");
        let now = read();
        let Some(Payload::MemoryPressure(event)) = Limits::event(before, now, 1, &place) else {
            panic!()
        };
        let expected = event::MemoryPressure {
            high_events: Some(4),
            max_events: 0,
            high_bytes: Some(1 << 20),
            limit_bytes: None,
            usage_bytes: Some(1 << 20),
            some_ns: Some(7_000),
            full_ns: Some(3_000),
            span_ns: 1,
        };
        assert_eq!(event, expected);
        assert_eq!(Limits::event(now, now, 1, &place), None);
    }

    #[test]
    fn the_counter_of_v1() {
        let directory = tempfile::tempdir().expect("a place for files");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
        };
        let place = Place { directory: directory.path(), version: Version::V1, path: "/a" };
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert!(!Limits::is_limited(&place));
        write("memory.limit_in_bytes", "1048576\n");
        write("memory.failcnt", "12\n");
        assert!(Limits::is_limited(&place));
        let now = Limits::read(&Limits::open(&place).expect("a file")).expect("a counter");
        let Some(Payload::MemoryPressure(event)) = Limits::event(Hits::default(), now, 1, &place)
        else {
            panic!()
        };
        assert_eq!((event.high_events, event.max_events, event.some_ns), (None, 12, None));
        assert_eq!((event.limit_bytes, event.usage_bytes), (Some(1 << 20), None));
    }
}
