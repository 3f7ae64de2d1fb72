//! The only map that sums up what is too frequent to be sent.

use core::arch::asm;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use ctrace_common::{
    Place,
    totals::{Measure, SLOTS, Total, TotalKey, Untotalled, slot},
};

use crate::emit;

/// Not one for each CPU: a histogram is large, and a container's tasks do not all end a wait at once.
#[map(name = "TOTALS")]
static TOTALS: HashMap<TotalKey, Total> = HashMap::with_max_entries(4 << 10, 0);

/// What is not in [`TOTALS`], by [`Untotalled`].
#[map(name = "TOTALS_LOST")]
static TOTALS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Untotalled::COUNT, 0);

/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;

/// What a new entry begins with: it is too large for a program's stack.
#[map]
static EMPTY: Array<Total> = Array::with_max_entries(1, 0);

/// Adds one that took `ns`.
#[inline(always)]
pub fn add(place: Place, measure: Measure, detail: u32, ns: u64, bytes: u64) {
    let key = TotalKey { place, measure: measure as u32, detail };
    let total = TOTALS.get_ptr(key).or_else(|| {
        let empty = EMPTY.get(0)?;
        // Where another CPU was first, its entry is as good.
        let _ = TOTALS.insert(key, empty, BPF_NOEXIST);
        TOTALS.get_ptr(key)
    });
    let Some(total) = total else { return lost(Untotalled::NoRoom, 1) };
    // The compiler knows that it is less than SLOTS and leaves every test of that out: the verifier
    // does not know.
    let place = slot(ns) as u32;
    let Some(slot) = emit::bounded(&raw const place, SLOTS - 1) else { return };
    // SAFETY: the map's values are aligned, and a slot is one of SLOTS.
    unsafe {
        add_to(&raw const (*total).sum_ns, ns);
        if bytes != 0 {
            add_to(&raw const (*total).bytes, bytes);
        }
        add_to((&raw const (*total).slots).cast::<u64>().add(slot), 1);
    }
}

/// Counts what cannot be added.
#[inline(always)]
pub fn lost(why: Untotalled, count: u64) {
    if let Some(lost) = TOTALS_LOST.get_ptr_mut(why as u32) {
        // SAFETY: the slot belongs to this CPU.
        unsafe { *lost += count };
    }
}

/// Adds in one instruction: other CPUs add to the same place. `core` has no such operation for this
/// target, which cannot compare and exchange before Linux 5.12.
///
/// # Safety
/// The place is an aligned number that is only ever changed by this.
#[inline(always)]
pub unsafe fn add_to(place: *const u64, more: u64) {
    // SAFETY: the caller has the place; nothing else is touched.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) place, in(reg) more, options(nostack)) };
}
