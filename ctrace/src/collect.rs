//! Draining the rings, and keeping count of what was lost.

mod misses;

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use ctrace_common::{
    Header, Kind, Place, Ring,
    totals::{Total, TotalKey, Untotalled},
};
use rustc_hash::FxHashMap;
use zerocopy::FromBytes;

use crate::event::Lost;
pub use misses::Misses;

/// Records taken before the losses are looked at again: in a flood the ring is never empty.
const BATCH: usize = 256;
/// Places that are remembered as denied: the programs remember no more either.
const MAX_DENIED: usize = 32 << 10;

/// Takes records out of a ring until it is empty or a batch is full; returns whether it is empty.
///
/// `handle` gets each whole record in place; it must not block.
pub fn drain(ring: &mut RingBuf<MapData>, mut handle: impl FnMut(Kind, &[u8])) -> bool {
    for _ in 0..BATCH {
        let Some(record) = ring.next() else { return true };
        if let Some(kind) = kind_of(&record) {
            handle(kind, &record);
        }
    }
    false
}

/// Takes out of a ring all that was in it at `now`, nanoseconds since boot; returns whether it is empty,
/// which it never is in a flood.
pub fn drain_until(
    ring: &mut RingBuf<MapData>,
    now: u64,
    mut handle: impl FnMut(Kind, &[u8]),
) -> bool {
    let mut last = 0;
    loop {
        let is_empty = drain(ring, |kind, record| {
            last = boot_ns(record);
            handle(kind, record);
        });
        if is_empty || last >= now {
            return is_empty;
        }
    }
}

/// When a record was made, nanoseconds since boot.
pub fn boot_ns(record: &[u8]) -> u64 {
    Header::read_from_prefix(record).map_or(0, |(header, _)| header.time_ns)
}

/// The kind of a record; absent where it is cut short or of no kind that this build knows. The
/// object is embedded in the binary, so that cannot come from the ring.
fn kind_of(record: &[u8]) -> Option<Kind> {
    let (header, _) = Header::read_from_prefix(record).ok()?;
    Kind::try_from(header.kind).ok()
}

/// Whether a loss is of cgroups that came or went, so that all cgroups are to be looked at anew. A fork
/// tells nothing of them.
pub fn is_of_cgroups(lost: &Lost) -> bool {
    lost.ring == Ring::Lifecycle.name() && lost.kind != Kind::Fork.name()
}

/// The losses since they were last asked for.
pub struct Losses {
    drops: PerCpuArray<MapData, u64>,
    seen: [u64; Kind::SLOTS as usize],
}

impl Losses {
    pub fn new(drops: PerCpuArray<MapData, u64>) -> Self {
        Self { drops, seen: [0; Kind::SLOTS as usize] }
    }

    /// What the kernel could not put into a ring since the last call, by kind.
    pub fn take(&mut self, ring: Ring) -> Vec<Lost> {
        let mut losses = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.ring() == ring) {
            // A map that the object itself made cannot fail to be read.
            let Ok(by_cpu) = self.drops.get(&(kind as u32), 0) else { continue };
            let total: u64 = by_cpu.iter().sum();
            let seen = &mut self.seen[kind as usize];
            if total > *seen {
                losses.push(Lost {
                    ring: kind.ring().name(),
                    kind: kind.name(),
                    count: total - *seen,
                });
                *seen = total;
            }
        }
        losses
    }
}

/// Losses of a ring that are not shown yet: what was in the ring when they were counted comes before
/// the gap.
#[derive(Debug, Default)]
pub struct Gap {
    losses: Vec<Lost>,
    /// When they were counted, nanoseconds since boot.
    counted_ns: u64,
}

impl Gap {
    /// After a batch was taken out of the ring: the losses that are to be shown now. `count` gives
    /// those since it was last called, which it is not while others wait: in a flood their turn would
    /// never come. `last_ns`: when the batch's last record was made; `now_ns`: since boot.
    pub fn after(
        &mut self,
        is_empty: bool,
        last_ns: u64,
        now_ns: u64,
        count: impl FnOnce() -> Vec<Lost>,
    ) -> Vec<Lost> {
        let is_passed = is_empty || last_ns >= self.counted_ns;
        if !is_passed && !self.losses.is_empty() {
            return Vec::new();
        }
        let mut shown = std::mem::take(&mut self.losses);
        if is_empty {
            shown.extend(count());
        } else {
            self.losses = count();
            self.counted_ns = now_ns;
        }
        shown
    }

    /// All that is not shown yet.
    pub fn take(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.losses)
    }
}

/// What the programs sum up.
pub struct Totals {
    map: HashMap<MapData, TotalBytes, TotalValue>,
    lost: PerCpuArray<MapData, u64>,
}

type TotalBytes = [u8; size_of::<TotalKey>()];
type TotalValue = [u8; size_of::<Total>()];

impl Totals {
    pub fn new(
        map: HashMap<MapData, TotalBytes, TotalValue>,
        lost: PerCpuArray<MapData, u64>,
    ) -> Self {
        Self { map, lost }
    }

    /// Takes out those of cgroups that are gone: the room is for others.
    pub fn take(&mut self, is_gone: impl Fn(&Place) -> bool) -> Vec<(TotalKey, Total)> {
        let keys: Vec<TotalBytes> = self.map.keys().filter_map(Result::ok).collect();
        let mut taken = Vec::new();
        for bytes in keys {
            let key: TotalKey = zerocopy::transmute!(bytes);
            if !is_gone(&key.place) {
                continue;
            }
            if let Ok(total) = self.map.get(&bytes, 0) {
                taken.push((key, zerocopy::transmute!(total)));
                // Where it fails it is already gone.
                let _ = self.map.remove(&bytes);
            }
        }
        taken
    }

    /// How many were not summed up for this reason.
    pub fn lost(&self, why: Untotalled) -> u64 {
        self.lost.get(&(why as u32), 0).map_or(0, |by_cpu| by_cpu.iter().sum())
    }
}

/// What the programs are told of cgroups and mount namespaces.
pub struct Places {
    map: HashMap<MapData, Key, u8>,
    denied: Denied,
}

/// A [`Place`], which has no padding.
type Key = [u8; size_of::<Place>()];

impl Places {
    pub fn new(map: HashMap<MapData, Key, u8>) -> Self {
        Self { map, denied: Denied::default() }
    }

    /// Says what is known of a place: bits of [`Place`].
    pub fn set(&mut self, place: Place, bits: u8) {
        if self.denied.is_full() {
            self.allow_all();
        }
        let key = zerocopy::transmute!(place);
        self.denied.note(key, bits);
        self.tell(key, bits);
    }

    /// Takes back all that was denied.
    pub fn allow_all(&mut self) {
        for (key, bits) in self.denied.take() {
            self.tell(key, bits & !Place::DENIED);
        }
    }

    fn tell(&mut self, key: Key, bits: u8) {
        // Where it fails the programs send more than they need to.
        let _ = self.map.insert(key, bits, 0);
    }
}

/// The places that are denied, with all that was said of them.
#[derive(Default)]
struct Denied(FxHashMap<Key, u8>);

impl Denied {
    fn note(&mut self, key: Key, bits: u8) {
        if bits & Place::DENIED != 0 {
            self.0.insert(key, bits);
        } else {
            self.0.remove(&key);
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_DENIED
    }

    fn take(&mut self) -> FxHashMap<Key, u8> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_denied_once_or_not_at_all() {
        let mut denied = Denied::default();
        let key = |id| zerocopy::transmute!(Place::new(0, id));
        for _ in 0..3 {
            denied.note(key(1), Place::DENIED);
            denied.note(key(2), Place::DENIED | Place::TELLS);
        }
        denied.note(key(3), Place::DENIED);
        denied.note(key(3), Place::TELLS);
        let expected = [(key(1), Place::DENIED), (key(2), Place::DENIED | Place::TELLS)];
        assert_eq!(denied.take(), expected.into_iter().collect());
        assert_eq!(denied.take(), FxHashMap::default());
    }

    #[test]
    fn a_gap_is_shown_behind_what_was_in_the_ring() {
        let lost = |count| vec![Lost { ring: "bulk", kind: "exit", count }];
        let none = Vec::new;
        let never = || panic!("others wait");
        let mut gap = Gap::default();
        // More is in the ring, and was there when the loss was counted.
        assert_eq!(gap.after(false, 100, 200, || lost(3)), []);
        assert_eq!(gap.after(false, 150, 300, never), []);
        // A flood: there are always new ones.
        assert_eq!(gap.after(false, 200, 400, || lost(4)), lost(3));
        assert_eq!(gap.after(false, 399, 500, never), []);
        assert_eq!(gap.after(false, 400, 600, none), lost(4));
        assert_eq!(gap.after(false, 410, 700, || lost(5)), []);
        assert_eq!(gap.after(true, 420, 800, || lost(6)), [lost(5), lost(6)].concat());
        assert_eq!(gap.after(true, 0, 900, none), []);
        assert_eq!(gap.after(false, 850, 1000, || lost(7)), []);
        assert_eq!((gap.take(), gap.take()), (lost(7), vec![]));
    }

    #[test]
    fn only_cgroups_need_a_walk() {
        let is_walk = |kind: Kind| {
            is_of_cgroups(&Lost { ring: kind.ring().name(), kind: kind.name(), count: 1 })
        };
        let walk: Vec<_> = Kind::ALL.into_iter().filter(|kind| is_walk(*kind)).collect();
        let cgroups =
            [Kind::CgroupMkdir, Kind::CgroupRmdir, Kind::CgroupRelease, Kind::CgroupRename];
        assert_eq!(walk, cgroups);
    }
}
