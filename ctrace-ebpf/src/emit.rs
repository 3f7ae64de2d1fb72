//! The only ring buffers, and the only place that counts what did not fit.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_boot_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use ctrace_common::{Header, Kind, Ring};

/// Rare, precious events: OOM kills and the cgroups they name, deaths and what they are judged by,
/// denials. What may become frequent leaves the others room. The collector sets the sizes.
#[map(name = "RARE")]
static RARE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Cgroups that come and go, and processes that no cgroup tells of.
#[map(name = "LIFECYCLE")]
static LIFECYCLE: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

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

/// Sends a record to its kind's ring, or counts it.
#[inline(always)]
pub fn send(kind: Kind, record: &[u8]) {
    let ring = ring_of(kind);
    let flags = match (kind, kind.ring()) {
        // A fork is only of interest to an event, which wakes the collector itself.
        (Kind::Fork, _) if has_room(ring) => BPF_RB_NO_WAKEUP as u64,
        // Without a flag the kernel wakes the collector only for the record that it waits for, and
        // that may be a fork that woke nobody.
        (_, Ring::Lifecycle) => BPF_RB_FORCE_WAKEUP as u64,
        (_, Ring::Rare | Ring::Bulk) => 0,
    };
    if ring.output::<[u8]>(record, flags).is_err() {
        lost(kind);
    }
}

/// Sends a record that matters less than others of its ring: it may not take the last half of the
/// room.
#[inline(always)]
pub fn send_if_room(kind: Kind, record: &[u8]) {
    if has_room(ring_of(kind)) { send(kind, record) } else { lost(kind) }
}

#[inline(always)]
fn ring_of(kind: Kind) -> &'static RingBuf {
    match kind.ring() {
        Ring::Rare => &RARE,
        Ring::Lifecycle => &LIFECYCLE,
        Ring::Bulk => &BULK,
    }
}

/// Sends the record at the beginning of `buffer`, as many bytes as its header says; counts it as lost
/// where that is more than the buffer has.
#[inline(always)]
pub fn send_sized<T>(kind: Kind, buffer: *const T) {
    // SAFETY: every record begins with its header.
    let place = unsafe { &raw const (*buffer.cast::<Header>()).size };
    let Some(size) = bounded(place, size_of::<T>()) else {
        return lost(kind);
    };
    // SAFETY: the buffer has at least `size` bytes.
    send(kind, unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), size) });
}

/// The number at `place`, if it is at most `most`. Older verifiers lose the bounds of a number that
/// was compared before it was copied: read back from memory it is new, and nothing is optimized away.
#[inline(always)]
pub fn bounded(place: *const u32, most: usize) -> Option<usize> {
    // SAFETY: the caller has the place.
    let number = unsafe { core::ptr::read_volatile(place) } as usize;
    if number > most { None } else { Some(number) }
}

/// Whether less than half of the ring is waiting for the collector.
#[inline(always)]
fn has_room(ring: &RingBuf) -> bool {
    ring.query(BPF_RB_AVAIL_DATA as u64) < ring.query(BPF_RB_RING_SIZE as u64) / 2
}

/// The header of a record that is made now.
#[inline(always)]
pub fn header(kind: Kind, size: usize) -> Header {
    // SAFETY: the helper reads the clock.
    let time_ns = unsafe { bpf_ktime_get_boot_ns() };
    Header { time_ns, kind: kind as u16, flags: 0, size: size as u32 }
}
