//! Durations, as the kernel's histograms have them.

use ctrace_common::totals::{SLOTS, Total, least_of};

/// How many took how long, and how much they moved.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    pub sum_ns: u64,
    pub bytes: u64,
    /// Made with the first: a histogram is large.
    slots: Option<Box<[u64; SLOTS]>>,
}

impl Latency {
    /// Adds what was summed up in the kernel.
    pub fn add(&mut self, total: &Total) {
        let Total { sum_ns, bytes, slots } = total;
        self.sum_ns += sum_ns;
        self.bytes += bytes;
        self.add_slots(slots);
    }

    pub fn merge(&mut self, other: &Latency) {
        self.sum_ns += other.sum_ns;
        self.bytes += other.bytes;
        if let Some(slots) = &other.slots {
            self.add_slots(slots);
        }
    }

    fn add_slots(&mut self, more: &[u64; SLOTS]) {
        let slots = self.slots.get_or_insert_with(|| Box::new([0; SLOTS]));
        slots.iter_mut().zip(more).for_each(|(slot, more)| *slot += more);
    }

    pub fn count(&self) -> u64 {
        self.slots.iter().flat_map(|slots| slots.iter()).sum()
    }

    /// The duration that so many of a hundred do not exceed: the middle of its slot, which is wrong by
    /// an eighth at most. In the first and the last slot it is the slot's border. Absent where there
    /// is none at all.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        let slots = self.slots.as_ref().filter(|_| count > 0)?;
        let rank = (u128::from(count) * u128::from(percent)).div_ceil(100).max(1);
        let mut below = 0;
        let slot = slots.iter().position(|slot| {
            below += u128::from(*slot);
            below >= rank
        })?;
        let (least, next) = (least_of(slot), least_of(slot + 1));
        Some(match slot {
            0 => next,
            slot if slot == SLOTS - 1 => least,
            _ => least + (next - least) / 2,
        })
    }
}
