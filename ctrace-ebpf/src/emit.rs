//! The only ring buffers, and the only place that counts what did not fit.

use aya_ebpf::{
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use ctrace_common::Kind;

/// Rare, precious events: OOM kills and the cgroups they name. The collector sets the sizes.
#[map(name = "RARE")]
static RARE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// High rates, so that they cannot fill the ring of the rare ones.
#[map(name = "BULK")]
static BULK: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records that did not fit their ring, by [`Kind`].
#[map(name = "DROPS")]
static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Kind::SLOTS, 0);

/// Counts a record of `kind` as lost.
#[inline(always)]
pub fn lost(kind: Kind) {
    if let Some(count) = DROPS.get_ptr_mut(kind as u32) {
        // SAFETY: the slot belongs to this CPU.
        unsafe { *count += 1 };
    }
}

/// Sends a record to the ring of the rare ones, or counts it.
#[inline(always)]
pub fn rare(kind: Kind, record: &[u8]) {
    if RARE.output::<[u8]>(record, 0).is_err() {
        lost(kind);
    }
}
