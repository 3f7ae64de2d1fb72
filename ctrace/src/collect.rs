//! Draining the rings, and keeping count of what was lost.

use aya::maps::{HashMap, MapData, PerCpuArray, RingBuf};
use ctrace_common::{Header, Kind, Place};
use zerocopy::FromBytes;

use crate::event::Lost;

/// Records taken before the losses are looked at again: in a flood the ring is never empty.
const BATCH: usize = 256;

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

/// The kind of a record; absent where it is cut short or of no kind that this build knows. The
/// object is embedded in the binary, so that cannot come from the ring.
fn kind_of(record: &[u8]) -> Option<Kind> {
    let (header, _) = Header::read_from_prefix(record).ok()?;
    Kind::try_from(header.kind).ok()
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

    /// What the kernel could not put into its rings since the last call, by kind.
    pub fn take(&mut self) -> Vec<Lost> {
        let mut losses = Vec::new();
        for kind in Kind::ALL {
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

/// What the programs are told of cgroups and mount namespaces.
pub struct Places {
    map: HashMap<MapData, [u8; size_of::<Place>()], u8>,
    denied: Vec<(Place, u8)>,
}

impl Places {
    pub fn new(map: HashMap<MapData, [u8; size_of::<Place>()], u8>) -> Self {
        Self { map, denied: Vec::new() }
    }

    /// Says what is known of a place: bits of [`Place`].
    pub fn set(&mut self, place: Place, bits: u8) {
        // Where it fails the programs send more than they need to.
        let _ = self.map.insert(key(place), bits, 0);
        if bits & Place::DENIED != 0 {
            self.denied.push((place, bits));
        }
    }

    /// Takes back all that was denied.
    pub fn allow_all(&mut self) {
        for (place, bits) in std::mem::take(&mut self.denied) {
            self.set(place, bits & !Place::DENIED);
        }
    }
}

fn key(place: Place) -> [u8; size_of::<Place>()] {
    zerocopy::transmute!(place)
}
