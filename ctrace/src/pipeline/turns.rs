//! From cgroups that come and go to containers that start and end. A container starts with the first
//! of its own cgroups, in whatever hierarchy, and ends with the last.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::{NAME_WAIT, clock};
use crate::attribute::Attributor;
use crate::attribute::inventory::{Group, Own};
use crate::event::{CgroupKey, Container, Listed, Lost, Turn, is_hex64};

/// How long a new cgroup may turn out to be a container's: runc writes its state some 120 ms after
/// the cgroup was made.
const CLAIM_WAIT: Duration = Duration::from_secs(5);
/// Cgroups that may still turn out so; of more, the oldest are left out.
const MAX_UNCLAIMED: usize = 4096;

/// A cgroup was made, or its directory removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: CgroupKey,
    pub is_made: bool,
    /// Nanoseconds since boot.
    pub time_ns: u64,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A container has started or ended. `time_ns`: since the epoch, UTC.
    Turn { turn: Turn, listed: Box<Listed>, time_ns: i128 },
    /// Records were lost, and starts and ends with them; what is there now was looked at anew.
    Lost(Lost),
}

/// A container that has a cgroup.
struct Living {
    listed: Listed,
    /// Nanoseconds since boot.
    begun_ns: u64,
    /// How long its start may wait for its name; none: it was said.
    until: Option<Instant>,
    /// Its own cgroups that live.
    left: usize,
}

/// A cgroup of nobody that is known yet.
struct Unclaimed {
    key: CgroupKey,
    made_ns: u64,
    until: Instant,
}

#[derive(Default)]
pub struct Turns {
    living: FxHashMap<Group, Living>,
    groups: FxHashMap<CgroupKey, Group>,
    unclaimed: VecDeque<Unclaimed>,
    /// [`Attributor::metadata_generation`] that all of it was last compared with.
    generation: u64,
}

impl Turns {
    /// Takes in what lives already; nothing is said of it.
    pub fn new(attributor: &mut Attributor) -> Self {
        let mut this = Self::default();
        for key in attributor.living() {
            if let Some(own) = attributor.own(key) {
                this.add(own, 0, None);
            }
        }
        this.generation = attributor.metadata_generation();
        this
    }

    /// Takes in a cgroup that came or went.
    pub fn change(
        &mut self,
        attributor: &mut Attributor,
        change: Change,
        now: Instant,
        say: &mut Vec<Happening>,
    ) {
        let Change { key, is_made, time_ns } = change;
        if !is_made {
            self.unclaimed.retain(|unclaimed| unclaimed.key != key);
            self.remove(attributor, key, time_ns, say);
        } else if let Some(mut own) = attributor.own(key) {
            if is_nameless(&own.container) {
                // No file was read ahead: this asks the disk.
                attributor.of_place(key, time_ns);
                own = attributor.own(key).unwrap_or(own);
            }
            self.add(own, time_ns, Some(now + NAME_WAIT));
        } else {
            if self.unclaimed.len() >= MAX_UNCLAIMED {
                self.unclaimed.pop_front();
            }
            self.unclaimed.push_back(Unclaimed { key, made_ns: time_ns, until: now + CLAIM_WAIT });
        }
    }

    /// Says the starts whose containers have their names, or have waited long enough for them.
    /// Metadata may have been read since.
    pub fn settle(&mut self, attributor: &mut Attributor, now: Instant, say: &mut Vec<Happening>) {
        let generation = attributor.metadata_generation();
        let is_news = std::mem::replace(&mut self.generation, generation) != generation;
        if is_news {
            for unclaimed in std::mem::take(&mut self.unclaimed) {
                match attributor.own(unclaimed.key) {
                    Some(own) => self.add(own, unclaimed.made_ns, Some(now)),
                    None => self.unclaimed.push_back(unclaimed),
                }
            }
        }
        self.unclaimed.retain(|unclaimed| unclaimed.until > now);
        let mut due: Vec<(u64, Happening)> = Vec::new();
        for living in self.living.values_mut() {
            let Living { listed, begun_ns, until, left: _ } = living;
            let Some(deadline) = *until else { continue };
            if is_news {
                refresh(attributor, listed);
            }
            if !is_nameless(&listed.container) || deadline <= now {
                *until = None;
                due.push((*begun_ns, turn(Turn::Start, listed, *begun_ns)));
            }
        }
        due.sort_by_key(|(begun_ns, _)| *begun_ns);
        say.extend(due.into_iter().map(|(_, happening)| happening));
    }

    /// Records were lost: compares what is known with what is there after a walk. `now_ns`: since
    /// boot.
    pub fn resync(
        &mut self,
        attributor: &mut Attributor,
        now_ns: u64,
        now: Instant,
        say: &mut Vec<Happening>,
    ) {
        let there: FxHashSet<CgroupKey> = attributor.living().into_iter().collect();
        let gone = self.groups.keys().filter(|key| !there.contains(key));
        let gone: Vec<CgroupKey> = gone.copied().collect();
        for key in gone {
            self.remove(attributor, key, now_ns, say);
        }
        for key in there {
            if !self.groups.contains_key(&key)
                && let Some(own) = attributor.own(key)
            {
                self.add(own, now_ns, Some(now + NAME_WAIT));
            }
        }
    }

    /// When the first start has waited long enough.
    pub fn due(&self) -> Option<Instant> {
        self.living.values().filter_map(|living| living.until).min()
    }

    /// `until`: how long its start may wait for its name; none where it is not to be said.
    fn add(&mut self, own: Own, begun_ns: u64, until: Option<Instant>) {
        let Own { group, container, outer, place, .. } = own;
        let known = self.living.entry(group.clone()).or_insert_with(|| Living {
            listed: Listed { container, outer, ..Listed::default() },
            begun_ns,
            until,
            left: 0,
        });
        if self.groups.insert(place.key, group).is_none() {
            known.listed.cgroups.push(place);
            known.left += 1;
        }
    }

    fn remove(
        &mut self,
        attributor: &mut Attributor,
        key: CgroupKey,
        time_ns: u64,
        say: &mut Vec<Happening>,
    ) {
        let Some(group) = self.groups.remove(&key) else { return };
        let Some(living) = self.living.get_mut(&group) else { return };
        living.left = living.left.saturating_sub(1);
        if living.left > 0 {
            return;
        }
        let Some(living) = self.living.remove(&group) else { return };
        let Living { mut listed, begun_ns, until, left: _ } = living;
        refresh(attributor, &mut listed);
        if until.is_some() {
            say.push(turn(Turn::Start, &listed, begun_ns));
        }
        say.push(turn(Turn::End, &listed, time_ns));
    }
}

/// Whether a name may still come: only an id of 64 digits comes with one.
fn is_nameless(container: &Container) -> bool {
    container.name.is_none() && is_hex64(&container.id)
}

/// Looks again who it is: metadata may have come.
fn refresh(attributor: &mut Attributor, listed: &mut Listed) {
    let own = listed.cgroups.first().and_then(|place| attributor.own(place.key));
    if let Some(own) = own.filter(|own| own.container.id == listed.container.id) {
        listed.container = own.container;
    }
}

fn turn(turn: Turn, listed: &Listed, boot_ns: u64) -> Happening {
    let time_ns = clock::wall_of_boot(boot_ns);
    Happening::Turn { turn, listed: Box::new(listed.clone()), time_ns }
}

#[cfg(test)]
mod tests;
