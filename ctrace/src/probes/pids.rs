//! Cgroups whose forks are refused, because they have as many processes as they may: `pids.events`.
//!
//! On v1, and on v2 before Linux 6.11 (or with `pids_localevents`), the kernel counts a refused fork
//! on the cgroup that forked, wherever the limit is; later on the cgroup that has the limit, in
//! `pids.events.local`. <https://docs.kernel.org/admin-guide/cgroup-v2.html#pid>

use std::path::Path;

use aya::Ebpf;

use super::{
    Asked, Decoder, Probe, ProbePlan, Unsupported,
    sampled::{Counted, Place},
    throttle::{plan, sampler},
};
use crate::{
    event::{self, Payload},
    kernel::{
        Facts,
        limits::{self, Kept},
    },
};

pub struct Pids;

impl Probe for Pids {
    fn name(&self) -> &'static str {
        "pids"
    }

    fn doc(&self) -> &'static str {
        "cgroups that have as many processes as they may, so that forks are refused"
    }

    fn events(&self) -> &'static [&'static str] {
        &["pids_max"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        plan(facts, "pids", "pids.events", "refused forks, once a second")
    }

    fn decoder(
        &self,
        facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        sampler::<Forks>(facts, "pids")
    }
}

struct Forks;

const LOCAL: &str = "pids.events.local";

/// A cgroup with a limit, from one up to those around it.
struct Level<'a> {
    path: &'a str,
    directory: &'a Path,
    limit: u64,
}

impl Level<'_> {
    fn current(&self) -> Option<u64> {
        limits::read(self.directory, "pids.current", limits::parse_number)
    }
}

/// The limits of a cgroup and of those around it, its own first.
fn levels<'a>(place: &Place<'a>) -> impl Iterator<Item = Level<'a>> + use<'a> {
    let (directory, path) = (place.directory, place.path);
    let directories = directory.ancestors();
    let paths = std::iter::successors(Some(path), |path| Some(path.rsplit_once('/')?.0));
    // The root of the hierarchy has no limit, and its path is empty.
    let levels = directories.zip(paths.take_while(|path| path.len() > 1));
    levels.filter_map(|(directory, path)| {
        let limit = limits::read(directory, "pids.max", limits::parse_number)?;
        Some(Level { path, directory, limit })
    })
}

impl Counted for Forks {
    type Counts = u64;
    type Files = Kept;

    fn is_limited(place: &Place) -> bool {
        match place.directory.join(LOCAL).exists() {
            true => limits::read(place.directory, "pids.max", limits::parse_number).is_some(),
            false => levels(place).next().is_some(),
        }
    }

    fn open(place: &Place) -> Option<Kept> {
        let open = |file| Kept::open(place.directory, file);
        open(LOCAL).or_else(|| open("pids.events"))
    }

    fn read(file: &Kept) -> Option<u64> {
        file.read(|text| limits::keyed(text, "max"))
    }

    fn event(before: u64, now: u64, span_ns: u64, place: &Place) -> Option<Payload> {
        let hits = now.saturating_sub(before);
        if hits == 0 {
            return None;
        }
        let is_reached = |level: &Level| level.current().is_some_and(|count| count >= level.limit);
        let own = || levels(place).find(|level| level.path == place.path);
        let level = levels(place).find(is_reached).or_else(own);
        Some(Payload::PidsMax(event::PidsMax {
            hits,
            limit: level.as_ref().map(|level| level.limit),
            current: level.as_ref().and_then(Level::current),
            limit_cgroup: level.map(|level| level.path.to_owned()),
            span_ns,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::kernel::Version;

    #[test]
    fn the_limit_that_is_reached_may_be_above() {
        let root = tempfile::tempdir().expect("a place for files");
        let inner = root.path().join("pod/box");
        fs::create_dir_all(&inner).expect("directories");
        let write = |name: &str, text: &str| {
            fs::write(root.path().join(name), text).expect("written");
        };
        let place = Place { directory: &inner, version: Version::V2, path: "/pod/box" };
        write("pod/pids.max", "max\n");
        write("pod/box/pids.max", "max\n");
        assert!(!Forks::is_limited(&place));
        write("pod/pids.max", "20\n");
        write("pod/pids.current", "20\n");
        write("pod/box/pids.events", "max 3\n");
        assert!(Forks::is_limited(&place), "the pod's limit, counted here");
        let read = || Forks::read(&Forks::open(&place)?);
        assert_eq!(read(), Some(3));
        let Some(Payload::PidsMax(event)) = Forks::event(1, 3, 5, &place) else { panic!() };
        let expected = event::PidsMax {
            hits: 2,
            limit: Some(20),
            current: Some(20),
            limit_cgroup: Some("/pod".to_owned()),
            span_ns: 5,
        };
        assert_eq!(event, expected);
        assert_eq!(Forks::event(3, 3, 5, &place), None);

        write("pod/box/pids.events.local", "max 1\n");
        assert!(!Forks::is_limited(&place), "counted where the limit is");
        assert_eq!(read(), Some(1));
    }
}
