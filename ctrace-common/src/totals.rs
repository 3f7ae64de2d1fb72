//! What the programs sum up instead of sending it: latencies by cgroup.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Place;

/// What is measured. On the wire it is the `u32` of [`TotalKey::measure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Measure {
    /// From runnable to running, of the tasks of a cgroup.
    RunQueue = 1,
    /// From queued to complete, of the reads that a cgroup owns; the detail is the device.
    BlockRead = 2,
    /// The same of writes.
    BlockWrite = 3,
    /// The same of all else: discards, flushes.
    BlockOther = 4,
}

impl Measure {
    pub const ALL: [Measure; 4] =
        [Measure::RunQueue, Measure::BlockRead, Measure::BlockWrite, Measure::BlockOther];
}

impl TryFrom<u32> for Measure {
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Measure::ALL.into_iter().find(|measure| *measure as u32 == number).ok_or(number)
    }
}

/// Why a latency is in no total. On the wire it is the index in the map `TOTALS_LOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Untotalled {
    /// There was no room for another cgroup.
    NoRoom = 0,
    /// The kernel has switched to the task and called nobody at `sched_switch`.
    Untold = 1,
}

impl Untotalled {
    pub const COUNT: u32 = 2;
}

/// A key of the map `TOTALS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TotalKey {
    /// The cgroup: the task's v1 cgroup where the host has v1, else its v2 cgroup; the owner of an I/O.
    pub place: Place,
    /// A [`Measure`].
    pub measure: u32,
    /// What the measure is of: a device as the kernel numbers it (`major << 20 | minor`); else 0.
    pub detail: u32,
}

/// Octaves of [`Total::slots`]: from 2^10 to 2^36 ns, a microsecond to a minute.
pub const OCTAVES: usize = 26;
/// Slots in each octave: a value is known to an eighth of itself.
pub const SLOTS_PER_OCTAVE: usize = 4;
const FIRST_OCTAVE: u32 = 10;
/// One below and one above the octaves.
pub const SLOTS: usize = OCTAVES * SLOTS_PER_OCTAVE + 2;

/// A value of the map `TOTALS`: a histogram whose slots grow with the value.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Total {
    /// Nanoseconds of all.
    pub sum_ns: u64,
    /// Bytes of all, where they have bytes.
    pub bytes: u64,
    /// How many, by [`slot`].
    pub slots: [u64; SLOTS],
}

/// The slot that a duration belongs to.
#[inline(always)]
pub const fn slot(ns: u64) -> usize {
    if ns < 1 << FIRST_OCTAVE {
        return 0;
    }
    let octave = 63 - ns.leading_zeros();
    if octave >= FIRST_OCTAVE + OCTAVES as u32 {
        return SLOTS - 1;
    }
    // The two bits below the highest one.
    let part = (ns >> (octave - 2)) as usize & (SLOTS_PER_OCTAVE - 1);
    1 + (octave - FIRST_OCTAVE) as usize * SLOTS_PER_OCTAVE + part
}

/// The least duration of a slot, nanoseconds; that of the slot after the last is `u64::MAX`.
pub const fn least_of(slot: usize) -> u64 {
    match slot {
        0 => 0,
        SLOTS.. => u64::MAX,
        _ => {
            let (octave, part) = ((slot - 1) / SLOTS_PER_OCTAVE, (slot - 1) % SLOTS_PER_OCTAVE);
            ((SLOTS_PER_OCTAVE + part) as u64) << (octave as u32 + FIRST_OCTAVE - 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_meet_and_grow() {
        for index in 0..SLOTS {
            let (least, next) = (least_of(index), least_of(index + 1));
            assert!(least < next, "{index}");
            assert_eq!((slot(least), slot(next - 1)), (index, index));
        }
        assert_eq!((slot(1023), slot(1024), slot(1279), slot(1280)), (0, 1, 1, 2));
        assert_eq!(slot(u64::MAX), SLOTS - 1);
    }
}
