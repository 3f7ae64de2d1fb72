//! Leaves out what the user did not ask for, as far as the kernel can tell.
//!
//! Only what the collector knows to be unwanted is denied: a cgroup that it has not judged yet
//! passes, and the collector's own filter decides. So a container that starts later is seen from its
//! first event.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, LruHashMap},
};
use ctrace_common::{Place, TaskIdentity};

use crate::{kernel::global, task::SETTINGS};

/// What the collector knows of cgroups and mount namespaces.
#[map(name = "PLACES")]
static PLACES: LruHashMap<Place, u8> = LruHashMap::with_max_entries(32 << 10, 0);

/// Processes whose events are wanted, where only some are.
#[map(name = "PIDS")]
static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1 << 10, 0);

/// Whether an event of this task may be wanted.
#[inline(always)]
pub fn may_want(task: &TaskIdentity) -> bool {
    // SAFETY: nothing is kept of what the map gives.
    if global!(SETTINGS, filter_pids) == 1 && unsafe { PIDS.get(task.tgid) }.is_none() {
        return false;
    }
    if global!(SETTINGS, filter_places) == 0 {
        return true;
    }
    let host = task.mnt_ns == global!(SETTINGS, host_mnt_ns);
    !(is(Place::DENIED, 0, task.cgroup_v2)
        && (task.cgroup_v1 == 0 || is(Place::DENIED, task.hierarchy_v1, task.cgroup_v1))
        && (host || is(Place::DENIED, Place::MNT_NS, task.mnt_ns_id)))
}

/// Whether one of the task's cgroups tells whose it is.
#[inline(always)]
pub fn is_told_by_cgroup(task: &TaskIdentity) -> bool {
    is(Place::TELLS, 0, task.cgroup_v2) || is(Place::TELLS, task.hierarchy_v1, task.cgroup_v1)
}

#[inline(always)]
fn is(bit: u8, hierarchy: u32, id: u64) -> bool {
    // SAFETY: the value is copied.
    unsafe { PLACES.get(Place::new(hierarchy, id)) }.is_some_and(|value| value & bit != 0)
}

/// Whether an event of what a cgroup owns may be wanted. `process` is the one that it names, if it
/// does: it may tell more than the cgroup. `submitter`: the only process id that the event can have.
#[inline(always)]
pub fn may_want_owned(owner: Place, submitter: u32, process: Option<&TaskIdentity>) -> bool {
    // SAFETY: nothing is kept of what the map gives.
    if global!(SETTINGS, filter_pids) == 1 && unsafe { PIDS.get(submitter) }.is_none() {
        return false;
    }
    if global!(SETTINGS, filter_places) == 0 || !is(Place::DENIED, owner.hierarchy, owner.id) {
        return true;
    }
    process.is_some_and(may_want)
}
