//! What no hook tells and cgroups' files count: looked at once a second, where a limit is set.
//!
//! A cgroup without a limit costs nothing but a look now and then whether it has one by now: three
//! looks when it is new (a runtime writes the limit some milliseconds after it has made the cgroup),
//! then [`LOOKS`] cgroups a second in turn. What a cgroup counts in its last second is not seen: its
//! files go with it.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Decoder, Living};
use crate::{
    event::{CgroupKey, Payload, Subject},
    kernel::{CgroupLayout, Version, limits},
};

/// Cgroups that are looked at in a second for a limit that they had not.
const LOOKS: usize = 64;
/// Looks at a new cgroup.
const LOOKS_WHEN_NEW: u8 = 3;
/// How long a cgroup that hits its limit all the time is silent after an event, nanoseconds.
const SILENCE_NS: u64 = 10_000_000_000;

/// A cgroup's directory.
pub struct Place<'a> {
    pub directory: &'a Path,
    pub version: Version,
    /// Its path from the root of the hierarchy.
    pub path: &'a str,
}

/// Counters of a cgroup that only grow.
pub trait Counted: 'static {
    type Counts: Copy + Default + Send;
    /// The files that hold them.
    type Files: Send;

    /// Whether it has a limit that it can hit.
    fn is_limited(place: &Place) -> bool;
    /// Opens the files; absent: there are none.
    fn open(place: &Place) -> Option<Self::Files>;
    /// What it has counted; absent: the cgroup is gone.
    fn read(files: &Self::Files) -> Option<Self::Counts>;
    /// What `now` has more than `before`; absent where nothing happened. `span_ns`: the time between.
    fn event(
        before: Self::Counts,
        now: Self::Counts,
        span_ns: u64,
        place: &Place,
    ) -> Option<Payload>;
}

/// A controller's hierarchy.
#[derive(Clone, Debug)]
pub struct Controller {
    pub hierarchy: u32,
    pub version: Version,
    pub mount: PathBuf,
}

impl Controller {
    /// That of this name, where its hierarchy is mounted.
    pub fn of(layout: &CgroupLayout, name: &str) -> Option<Self> {
        let hierarchy = layout.controller(name)?;
        let mount = hierarchy.mount.clone()?;
        Some(Self { hierarchy: hierarchy.id, version: hierarchy.version, mount })
    }
}

/// What is known of a cgroup.
struct Sampled<C: Counted> {
    path: Arc<str>,
    directory: PathBuf,
    is_limited: bool,
    looks_left: u8,
    /// Kept open, while there is room.
    files: Option<C::Files>,
    /// What events have told of so far; absent: not looked at yet.
    told: Option<C::Counts>,
    /// What was read last.
    read: C::Counts,
    /// When `told` was, nanoseconds since boot.
    told_ns: u64,
    /// When there was an event.
    event_ns: Option<u64>,
}

/// Looks at the cgroups of one controller.
pub struct Sampler<C: Counted> {
    controller: Controller,
    cgroups: FxHashMap<CgroupKey, Sampled<C>>,
    /// Those that are looked at in turn.
    turns: VecDeque<CgroupKey>,
    /// [`Living::generation`] of `cgroups`; absent: never asked.
    generation: Option<u64>,
    /// When it looked last, nanoseconds since boot; 0: never.
    looked_ns: u64,
    /// Cgroups whose files may be kept open.
    room: usize,
}

impl<C: Counted> Sampler<C> {
    pub fn new(controller: Controller) -> Self {
        Self {
            controller,
            cgroups: FxHashMap::default(),
            turns: VecDeque::new(),
            generation: None,
            looked_ns: 0,
            room: limits::files_to_keep(),
        }
    }

    /// Takes in the cgroups that came, and gives the last events of those that went.
    fn follow(
        &mut self,
        living: &mut dyn Living,
        now_ns: u64,
        events: &mut Vec<(Subject, Payload)>,
    ) {
        let generation = Some(living.generation());
        if self.generation == generation {
            return;
        }
        // What is there from the start has counted before.
        let is_start = self.generation.is_none();
        self.generation = generation;
        let there: FxHashSet<CgroupKey> =
            living.of(self.controller.hierarchy).into_iter().collect();
        let version = self.controller.version;
        self.cgroups.retain(|key, cgroup| {
            let is_there = there.contains(key);
            if !is_there {
                events.extend(cgroup.event(*key, version, now_ns));
            }
            is_there
        });
        for key in there {
            if self.cgroups.contains_key(&key) {
                continue;
            }
            let Some(path) = living.path(key) else { continue };
            let cgroup = Sampled {
                directory: self.controller.mount.join(path.trim_start_matches('/')),
                path,
                is_limited: false,
                looks_left: LOOKS_WHEN_NEW,
                files: None,
                told: (!is_start).then(C::Counts::default),
                read: C::Counts::default(),
                // It came since the last look.
                told_ns: if is_start { now_ns } else { self.looked_ns },
                event_ns: None,
            };
            self.cgroups.insert(key, cgroup);
            self.turns.push_back(key);
        }
    }

    /// Finds out who has a limit by now. One that is lifted counts nothing more, and costs little.
    fn look(&mut self, living: &mut dyn Living) {
        let version = self.controller.version;
        let is_new = |cgroup: &&mut Sampled<C>| cgroup.looks_left > 0 && !cgroup.is_limited;
        for cgroup in self.cgroups.values_mut().filter(is_new) {
            cgroup.looks_left -= 1;
            cgroup.is_limited = C::is_limited(&cgroup.place(version));
        }
        for _ in 0..LOOKS.min(self.turns.len()) {
            let Some(key) = self.turns.pop_front() else { break };
            let Some(cgroup) = self.cgroups.get_mut(&key) else { continue };
            self.turns.push_back(key);
            // v1 lets a cgroup be renamed.
            if let Some(path) = living.path(key).filter(|path| *path != cgroup.path) {
                cgroup.directory = self.controller.mount.join(path.trim_start_matches('/'));
                cgroup.path = path;
            }
            cgroup.is_limited = cgroup.is_limited || C::is_limited(&cgroup.place(version));
        }
    }

    fn sample(
        &mut self,
        living: &mut dyn Living,
        now_ns: u64,
        is_end: bool,
    ) -> Vec<(Subject, Payload)> {
        let mut events = Vec::new();
        self.follow(living, now_ns, &mut events);
        self.look(living);
        self.looked_ns = now_ns;
        let version = self.controller.version;
        let kept = self.cgroups.values().filter(|cgroup| cgroup.files.is_some()).count();
        let mut room = self.room.saturating_sub(kept);
        for (key, cgroup) in &mut self.cgroups {
            if !cgroup.is_limited {
                continue;
            }
            let is_kept = cgroup.files.is_some();
            let files = cgroup.files.take().or_else(|| C::open(&cgroup.place(version)));
            let Some(files) = files else { continue };
            let Some(read) = C::read(&files) else { continue };
            if is_kept || room > 0 {
                room -= usize::from(!is_kept);
                cgroup.files = Some(files);
            }
            cgroup.read = read;
            if cgroup.told.is_none() {
                cgroup.told = Some(read);
                cgroup.told_ns = now_ns;
            }
            let is_silent =
                cgroup.event_ns.is_some_and(|event| now_ns.saturating_sub(event) < SILENCE_NS);
            if !is_silent || is_end {
                events.extend(cgroup.event(*key, version, now_ns));
            }
        }
        events
    }
}

impl<C: Counted> Sampled<C> {
    fn place(&self, version: Version) -> Place<'_> {
        Place { directory: &self.directory, version, path: &self.path }
    }

    /// The event of what was read last and not told, if that is anything.
    fn event(
        &mut self,
        key: CgroupKey,
        version: Version,
        now_ns: u64,
    ) -> Option<(Subject, Payload)> {
        let span_ns = now_ns.saturating_sub(self.told_ns);
        let payload = C::event(self.told?, self.read, span_ns, &self.place(version))?;
        self.told = Some(self.read);
        self.told_ns = now_ns;
        self.event_ns = Some(now_ns);
        Some((Subject::of_cgroup(key), payload))
    }
}

impl<C: Counted> Decoder for Sampler<C> {
    fn kinds(&self) -> &'static [ctrace_common::Kind] {
        &[]
    }

    fn decode(&mut self, _record: &[u8]) -> Result<(Subject, Payload), super::DecodeError> {
        // It takes no kind of record.
        Err(super::DecodeError::Kind(0))
    }

    fn look(
        &mut self,
        living: &mut dyn Living,
        now_ns: u64,
        is_end: bool,
    ) -> Vec<(Subject, Payload)> {
        self.sample(living, now_ns, is_end)
    }
}

#[cfg(test)]
mod tests;
