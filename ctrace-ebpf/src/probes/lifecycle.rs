//! Cgroups that come and go, and the forks of processes that no cgroup may name.

use aya_ebpf::{
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use ctrace_common::{
    Kind, TaskIdentity,
    event::{
        cgroup::{CgroupChange, CgroupChangeBuffer},
        process::Fork,
    },
};
use zerocopy::{FromZeros, IntoBytes};

use crate::{cgroup::Cgroup, emit, filter, kernel::Address, task::Task};

#[map]
static CGROUP_CHANGE: PerCpuArray<CgroupChangeBuffer> = PerCpuArray::with_max_entries(1, 0);

/// `cgroup_mkdir(cgrp, path)`
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: RawTracePointContext) -> i32 {
    changed(Kind::CgroupMkdir, ctx.arg(0))
}

#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: RawTracePointContext) -> i32 {
    changed(Kind::CgroupRmdir, ctx.arg(0))
}

#[raw_tracepoint(tracepoint = "cgroup_release")]
pub fn cgroup_release(ctx: RawTracePointContext) -> i32 {
    changed(Kind::CgroupRelease, ctx.arg(0))
}

/// Only v1 has it.
#[raw_tracepoint(tracepoint = "cgroup_rename")]
pub fn cgroup_rename(ctx: RawTracePointContext) -> i32 {
    changed(Kind::CgroupRename, ctx.arg(0))
}

#[inline(always)]
fn changed(kind: Kind, cgroup: u64) -> i32 {
    let cgroup = Cgroup::at(cgroup);
    let Some(buffer) = CGROUP_CHANGE.get_ptr_mut(0) else {
        emit::lost(kind);
        return 0;
    };
    // SAFETY: the buffer belongs to this program on this CPU until it returns.
    let CgroupChangeBuffer { change, name } = unsafe { &mut *buffer };
    let length = cgroup.read_name(name);
    let size = size_of::<CgroupChange>() + length;
    *change = CgroupChange {
        header: emit::header(kind, size),
        id: cgroup.id(),
        parent: cgroup.parent_id(),
        hierarchy: cgroup.hierarchy(),
        level: cgroup.level(),
    };
    emit::send_sized(kind, buffer);
    0
}

/// `sched_process_fork(parent, child)`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    let child = Task(Address(ctx.arg::<u64>(1)));
    if child.tid() != child.tgid() || child.is_in_host() {
        return 0;
    }
    let mut record = Fork {
        header: emit::header(Kind::Fork, size_of::<Fork>()),
        child: TaskIdentity::new_zeroed(),
    };
    child.identify(&mut record.child);
    if filter::is_told_by_cgroup(&record.child) {
        return 0;
    }
    emit::send(Kind::Fork, record.as_bytes());
    0
}
