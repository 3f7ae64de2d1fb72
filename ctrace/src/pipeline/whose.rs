//! The stage between decoder and filter: whose an event is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use ctrace_common::{
    Kind, Place,
    event::{
        cgroup::{CgroupChange, CgroupPath},
        process::Fork,
    },
};
use rustc_hash::FxHashSet;
use zerocopy::FromBytes;

use super::{
    DISORDER_NS, NAME_WAIT, Summary,
    awaited::{Awaited, POD_WAIT},
};
use crate::{
    attribute::{Attributor, Identity, Kinship},
    collect::{self, Places},
    enrich::Enricher,
    event::{Attribution, Cgroup, CgroupKey, Container, Detail, Subject},
    filter::Filter,
    kernel::clock,
    probes::Living,
};

/// Attribution, with the ring that it lives on.
pub struct Whose {
    ring: RingBuf<MapData>,
    attributor: Attributor,
    places: Places,
    /// Asks the runtimes, where the user wants it.
    enricher: Option<Enricher>,
    /// The filter, where it asks for anything that a cgroup or a namespace can answer.
    filter: Option<Filter>,
    /// Containers whose pods may still come, where the filter asks for pods and runtimes are asked.
    awaited: Option<Awaited>,
    /// Those whose places are not denied yet, only because a pod may still come.
    undecided: FxHashSet<Identity>,
    /// [`Attributor::epoch`] that `places` was told in.
    epoch: u64,
    /// All records of the ring before this time, nanoseconds since boot, are taken in.
    pub drained_ns: u64,
    /// Records that could not be decoded.
    undecoded: u64,
}

impl Whose {
    pub fn new(
        ring: RingBuf<MapData>,
        attributor: Attributor,
        places: Places,
        enricher: Option<Enricher>,
        filter: &Filter,
    ) -> Self {
        let epoch = attributor.epoch();
        let awaited = (enricher.is_some() && filter.asks_of_pods()).then(Awaited::default);
        let filter = filter.is_of_places().then(|| filter.clone());
        Self {
            ring,
            attributor,
            places,
            enricher,
            filter,
            awaited,
            undecided: FxHashSet::default(),
            epoch,
            drained_ns: 0,
            undecoded: 0,
        }
    }

    /// Takes in all that came and went, and all metadata that was written.
    pub fn catch_up(&mut self) {
        let now = clock::boot_now();
        let Self { ring, attributor, undecoded, .. } = self;
        let mut forked = Vec::new();
        let mut take = |kind, record: &[u8]| match take_in(attributor, kind, record) {
            Some(child) => forked.extend(child),
            None => *undecoded += 1,
        };
        let is_empty = collect::drain_until(ring, now, &mut take);
        self.drained_ns = if is_empty { now } else { now.saturating_sub(DISORDER_NS) };
        for child in forked {
            self.tell_programs(&child, now);
        }
        self.attributor.on_readable();
        if self.filter.is_some() && self.attributor.epoch() != self.epoch {
            self.epoch = self.attributor.epoch();
            self.places.allow_all();
        }
    }

    /// Takes in what a runtime said of its containers.
    pub fn tell(&mut self, containers: Vec<Container>) {
        for container in containers {
            if let Some(awaited) = &mut self.awaited {
                awaited.told(&container.id);
            }
            self.attributor.tell(container);
        }
        self.catch_up();
        self.decide();
    }

    /// Tells the programs what could not be decided while pods might still come.
    pub fn decide(&mut self) {
        let now = clock::boot_now();
        for who in std::mem::take(&mut self.undecided) {
            self.tell_programs(&who, now);
        }
    }

    /// How long the answer may still get what is asked for; none: it is as good as it gets.
    pub fn wait(&self, attribution: &Attribution) -> Option<Duration> {
        match attribution.is_partial {
            true => Some(NAME_WAIT),
            false => self.awaits_pod(attribution).then_some(POD_WAIT),
        }
    }

    /// Whether a cgroup is still there, as far as is known.
    pub fn lives(&self, place: &Place) -> bool {
        self.attributor.lives(CgroupKey { hierarchy: place.hierarchy, id: place.id })
    }

    /// Whose a cgroup is, where that is asked for.
    pub fn of_wanted_place(&mut self, place: &Place) -> Option<Attribution> {
        let key = CgroupKey { hierarchy: place.hierarchy, id: place.id };
        let found = self.attributor.of_place(key, clock::boot_now());
        let is_wanted = self.filter.as_ref().is_none_or(|filter| filter.may_want(&found));
        is_wanted.then_some(found)
    }

    fn awaits_pod(&self, attribution: &Attribution) -> bool {
        let Some(awaited) = &self.awaited else { return false };
        let now = Instant::now();
        let mut containers = attribution.containers();
        containers.any(|one| one.pod.is_none() && awaited.is_open(&one.id, now))
    }

    /// Takes in the path of a cgroup that an event is about to name.
    pub fn learn(&mut self, record: &[u8]) {
        if learn(&mut self.attributor, record).is_none() {
            self.undecoded += 1;
        }
    }

    /// Looks at all cgroups anew: records of what came and went were lost.
    pub fn walk(&mut self) {
        self.attributor.walk(clock::boot_now());
    }

    /// Looks for runtimes that were started since, where one is missing.
    pub fn rediscover(&mut self) {
        self.attributor.rediscover(clock::boot_now());
    }

    /// All that happened before `drained_ns` has been taken out of the rings.
    pub fn forget(&mut self, drained_ns: u64) {
        self.attributor.forget(drained_ns);
    }

    /// Adds what went wrong here.
    pub fn sum_up(&self, summary: &mut Summary) {
        summary.undecoded += self.undecoded;
        summary.metadata_overflows = self.attributor.watch_overflows();
        summary.metadata_unreadable = self.attributor.unreadable();
        summary.enrichment = self.enricher.as_ref().map(Enricher::reports).unwrap_or_default();
    }

    /// Fills in whose the event's subjects are, and the paths of the cgroups it names. `now`:
    /// nanoseconds since boot.
    pub fn attribute(&mut self, subject: &mut Subject, detail: &mut dyn Detail, now: u64) {
        self.attribute_one(subject, now);
        for subject in detail.subjects_mut() {
            self.attribute_one(subject, now);
        }
        for cgroup in detail.cgroups_mut() {
            self.name(cgroup);
        }
    }

    fn attribute_one(&mut self, subject: &mut Subject, now: u64) {
        let who = Identity::of(subject);
        subject.attribution = match self.attributor.recall(&who, now) {
            Some(known) => known,
            None => self.find(&who, Kinship::of(subject), now),
        };
        match &mut subject.cgroup {
            Some(cgroup) => cgroup.path = self.attributor.path(cgroup.key),
            None => {
                let path = subject.attribution.path.as_ref();
                subject.cgroup =
                    path.map(|(key, path)| Cgroup { key: *key, path: Some(path.clone()) });
            }
        }
    }

    fn find(&mut self, who: &Identity, kin: Kinship, now: u64) -> Arc<Attribution> {
        self.catch_up();
        let found = self.attributor.resolve(who, kin, now);
        for container in found.containers() {
            if let Some(enricher) = &self.enricher {
                enricher.ask(&container.id);
            }
            if let Some(awaited) = &mut self.awaited {
                awaited.seen(&container.id, Instant::now());
            }
        }
        self.tell_programs(who, now);
        found
    }

    /// Tells the programs what is known of the places, so that they send no more than is needed.
    fn tell_programs(&mut self, who: &Identity, now: u64) {
        for key in who.cgroups() {
            let place = self.attributor.of_place(key, now);
            let mut bits = if place.container.is_some() { Place::TELLS } else { 0 };
            if place.path.is_some() {
                bits |= self.denied(who, &place);
            }
            self.places.set(Place::new(key.hierarchy, key.id), bits);
        }
        if let Some(id) = who.mnt_ns.id
            && let Some(place) = self.attributor.of_mnt_ns(id, now)
        {
            let bits = self.denied(who, &place);
            self.places.set(Place::new(Place::MNT_NS, id), bits);
        }
    }

    fn denied(&mut self, who: &Identity, place: &Attribution) -> u8 {
        let is_unwanted = self.filter.as_ref().is_some_and(|filter| !filter.may_want(place));
        let is_open = is_unwanted && self.awaits_pod(place);
        if is_open {
            self.undecided.insert(*who);
        }
        if is_unwanted && !is_open { Place::DENIED } else { 0 }
    }

    fn name(&mut self, cgroup: &mut Cgroup) {
        cgroup.path = self.attributor.path(cgroup.key);
    }
}

impl Living for Whose {
    fn generation(&self) -> u64 {
        self.attributor.turnover()
    }

    fn of(&self, hierarchy: u32) -> Vec<CgroupKey> {
        let mut living = self.attributor.living();
        living.retain(|key| key.hierarchy == hierarchy);
        living
    }

    fn path(&mut self, key: CgroupKey) -> Option<Arc<str>> {
        self.attributor.path(key)
    }
}

/// Takes in a record of the lifecycle ring; nothing where it is cut short. A child that is new here
/// comes back.
pub fn take_in(attributor: &mut Attributor, kind: Kind, record: &[u8]) -> Option<Option<Identity>> {
    match kind {
        Kind::Fork => {
            let (Fork { header, child }, _) = Fork::read_from_prefix(record).ok()?;
            let child = Subject::of_record(&child, None);
            let who = Identity::of(&child);
            if attributor.recall(&who, header.time_ns).is_some() {
                return Some(None);
            }
            attributor.resolve(&who, Kinship::of(&child), header.time_ns);
            Some(Some(who))
        }
        _ => {
            let (change, name) = CgroupChange::read_from_prefix(record).ok()?;
            let CgroupChange { header, id, parent, hierarchy, level } = change;
            let name = name.strip_suffix(&[0]).unwrap_or(name);
            let key = CgroupKey { hierarchy, id };
            match kind {
                Kind::CgroupRmdir => attributor.removed(key, parent, level, name),
                Kind::CgroupRelease => attributor.released(key, header.time_ns),
                _ => attributor.made(key, parent, level, name),
            }
            Some(None)
        }
    }
}

/// Teaches the attributor the path that a record holds; nothing where the record is cut short.
fn learn(attributor: &mut Attributor, record: &[u8]) -> Option<()> {
    let (path, names) = CgroupPath::read_from_prefix(record).ok()?;
    let ids = path.ids.get(..path.depth as usize)?;
    let names = names.split(|byte| *byte == 0);
    attributor.learn(path.hierarchy, ids, names, path.truncated != 0);
    Some(())
}
