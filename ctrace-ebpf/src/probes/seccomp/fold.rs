//! Repeated denials are counted and not sent.
//!
//! There are two maps. Denials are counted in the one that is in use. The collector reads both once
//! a second, empties the one that was not in use since it last came, and has the other used: what it
//! removes, no program adds to any more, and no count is lost. A denial is sent at once where
//! neither map knows its like, and where there is no room.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use ctrace_common::{
    Kind,
    event::seccomp::{Action, FoldKey, Seccomp, Via},
};
use zerocopy::{FromZeros, IntoBytes};

use super::{SECCOMP_OFFSETS, current::Current};
use crate::{
    emit, filter,
    kernel::global,
    task::{SETTINGS, TASK_OFFSETS},
    totals::add_to,
};

/// Kinds of denials that are counted together, in each map.
const FOLDS: u32 = 1 << 10;

#[map(name = "SECCOMP_FOLDS_0")]
static FOLDS_0: HashMap<FoldKey, Seccomp> = HashMap::with_max_entries(FOLDS, 0);

#[map(name = "SECCOMP_FOLDS_1")]
static FOLDS_1: HashMap<FoldKey, Seccomp> = HashMap::with_max_entries(FOLDS, 0);

/// Which of them is in use: 0 or 1.
#[map(name = "SECCOMP_IN_USE")]
static IN_USE: Array<u32> = Array::with_max_entries(1, 0);

/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;

/// What was seen.
pub struct Denial<'a> {
    pub current: &'a Current,
    pub nr: i32,
    pub data: u32,
    pub flags: u16,
    pub action: Action,
    pub via: Via,
}

/// Sends a denial, or counts it.
#[expect(clippy::needless_borrows_for_generic_args, reason = "copies would not fit the stack")]
#[inline(always)]
pub fn report(denial: &Denial) {
    let Denial { current, nr, data, flags, action, via } = *denial;
    let is_compat = current.is_compat();
    let flags = flags | if is_compat { Seccomp::COMPAT } else { 0 };
    let (task, cgroups) = (current.task.0, current.task.cgroups());
    let tgid = current.task.tgid();
    let is_of_processes = global!(SETTINGS, filter_pids) == 1;
    let key = FoldKey {
        cgroup_v2: cgroups.v2.id(),
        cgroup_v1: cgroups.v1.id(),
        mnt_ns: current.task.mnt_ns(),
        tgid: if is_of_processes { tgid } else { 0 },
        comm: task.read(global!(TASK_OFFSETS, comm)),
        nr,
        data,
        action: action as u16,
        via: via as u16,
        flags,
        reserved: 0,
    };
    // A kill is the cause of one death.
    let is_kill = matches!(action, Action::KillThread | Action::KillProcess);
    let is_folded = global!(SECCOMP_OFFSETS, fold) == 1 && !is_kill;
    let is_second = matches!(IN_USE.get(0), Some(1));
    let (in_use, before) = if is_second { (&FOLDS_1, &FOLDS_0) } else { (&FOLDS_0, &FOLDS_1) };
    if is_folded && count(in_use, &key, tgid) {
        return;
    }

    // On the stack: programs on functions may be preempted.
    let mut record = Seccomp::new_zeroed();
    current.task.identify(&mut record.process);
    if !filter::may_want(&record.process) {
        return;
    }
    record.header = emit::header(Kind::Seccomp, size_of::<Seccomp>());
    record.args = current.args(is_compat);
    (record.nr, record.data, record.flags) = (nr, data, flags);
    (record.action, record.via) = (action as u16, via as u16);
    if is_folded {
        let is_known = before.get_ptr(&key).is_some();
        record.count = is_known as u64;
        if in_use.insert(&key, &record, BPF_NOEXIST).is_ok() {
            if is_known {
                return;
            }
        } else if count(in_use, &key, tgid) {
            // Another CPU was first.
            return;
        }
    }
    record.count = 1;
    // Whoever makes denied calls makes as many as it likes: they must not keep OOM kills out of the
    // ring.
    if is_kill {
        emit::send(Kind::Seccomp, record.as_bytes());
    } else {
        emit::send_if_room(Kind::Seccomp, record.as_bytes());
    }
}

/// Counts a denial where its like is known.
#[inline(always)]
fn count(folds: &HashMap<FoldKey, Seccomp>, key: &FoldKey, tgid: u32) -> bool {
    let Some(known) = folds.get_ptr_mut(key) else { return false };
    // SAFETY: the map's values are aligned, and the count is only ever added to.
    unsafe {
        add_to(&raw const (*known).count, 1);
        if (*known).process.tgid != tgid {
            (*known).several = 1;
        }
    }
    true
}
