//! What is under way, by the address of a bio or of a request.
//!
//! A table of slots, each for all addresses with the same hash, because a hash map would be most of
//! what a program costs; whatever finds its slot taken goes into a hash map.

use core::ptr;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use ctrace_common::{COMM_LEN, Kind};
use zerocopy::FromZeros;

use crate::{emit, totals::add_to};

/// An I/O under way.
#[derive(Clone, Copy, FromZeros)]
#[repr(C)]
pub struct Pending {
    /// As in [`ctrace_common::event::block::Block`].
    pub queued_ns: u64,
    pub issued_ns: u64,
    /// `task_struct` of who queued it; it may be gone.
    pub task: u64,
    /// First sector and bytes: of a bio as it was queued, of a request in parts those that are done.
    pub sector: u64,
    pub bytes: u64,
    pub tgid: u32,
    pub tid: u32,
    pub op_flags: u32,
    /// Bits: the constants of [`Pending`].
    pub flags: u32,
    /// How the first part that failed did so.
    pub status: i32,
    pub reserved: u32,
    pub comm: [u8; COMM_LEN],
}

impl Pending {
    /// A bio that was put before the others of its request.
    pub const IN_FRONT: u32 = 1;
    /// Parts of the request are done.
    pub const IN_PARTS: u32 = 2;
}

#[repr(C)]
struct Slot {
    /// How many want it; it belongs to who finds itself alone.
    claims: u64,
    /// Whose it is; 0: nobody's.
    key: u64,
    pending: Pending,
}

const SLOT_BITS: u32 = 13;

#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1 << SLOT_BITS, 0);

/// What found its slot taken. What does not fit is counted as lost.
#[map]
static OVERFLOW: HashMap<u64, Pending> = HashMap::with_max_entries(8 << 10, 0);

/// `include/uapi/linux/bpf.h`
const BPF_ANY: u64 = 0;

/// Fibonacci hashing: 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn slot_of(key: u64) -> Option<*mut Slot> {
    SLOTS.get_ptr_mut((key.wrapping_mul(GOLDEN) >> (u64::BITS - SLOT_BITS)) as u32)
}

/// What is known of the bio or the request at this address. It stays in place until it is
/// [removed](remove), and whoever has the bio or the request has it alone.
#[inline(always)]
pub fn find(key: u64) -> Option<*mut Pending> {
    if key == 0 {
        return None;
    }
    let slot = slot_of(key)?;
    // SAFETY: the map's memory stays; other CPUs write it too.
    match unsafe { ptr::read_volatile(&raw const (*slot).key) } {
        // SAFETY: the map's memory stays.
        found if found == key => Some(unsafe { &raw mut (*slot).pending }),
        _ => OVERFLOW.get_ptr_mut(key),
    }
}

/// A place for what is to be known of it, where all but the last field may have old values; none, and
/// it is counted, where there is no room.
#[inline(always)]
pub fn insert(key: u64) -> Option<*mut Pending> {
    let slot = slot_of(key)?;
    // SAFETY: the map's memory stays, and a slot is written by the one who claims it.
    unsafe {
        let pending = &raw mut (*slot).pending;
        let found = ptr::read_volatile(&raw const (*slot).key);
        if found == key {
            return Some(pending);
        }
        if found == 0 {
            let claims = &raw const (*slot).claims;
            add_to(claims, 1);
            if ptr::read_volatile(claims) == 1 {
                ptr::write_volatile(&raw mut (*slot).key, key);
                return Some(pending);
            }
            add_to(claims, u64::MAX);
        }
    }
    if OVERFLOW.insert(key, Pending::new_zeroed(), BPF_ANY).is_err() {
        emit::lost(Kind::Block);
        return None;
    }
    OVERFLOW.get_ptr_mut(key)
}

/// Forgets it, if anything is known of it.
#[inline(always)]
pub fn remove(key: u64) {
    let Some(slot) = slot_of(key) else { return };
    // SAFETY: as above.
    unsafe {
        if key != 0 && ptr::read_volatile(&raw const (*slot).key) == key {
            ptr::write_volatile(&raw mut (*slot).key, 0);
            add_to(&raw const (*slot).claims, u64::MAX);
            return;
        }
    }
    // There may be none.
    let _ = OVERFLOW.remove(key);
}
