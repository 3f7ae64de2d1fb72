//! I/O of block devices: latencies summed up by owner, and what failed or was slow as records.
//!
//! What is under way is kept by the address of its first bio, from the moment that it was queued, so
//! that the time before there is a request counts, and so that a request finds the state of its bio
//! without another one. A request that is finished in parts, or has no bio, is kept by its own
//! address: its first bio changes with every part.

mod pending;

use aya_ebpf::{
    helpers::{
        bpf_ktime_get_boot_ns,
        generated::{
            bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns,
        },
    },
    macros::{map, raw_tracepoint},
    maps::PerCpuArray,
    programs::RawTracePointContext,
};
use ctrace_common::{
    COMM_LEN, Kind, Place, TaskIdentity,
    event::block::{Block, DISK_NAME_LEN},
    offsets::{BlockOffsets, MISSING},
    totals::Measure,
};
use zerocopy::{FromZeros, IntoBytes};

use pending::Pending;

use crate::{
    cgroup::Cgroup,
    emit, filter,
    kernel::{Address, Global, Head, global},
    task::{TASK_OFFSETS, Task},
    totals,
};

#[unsafe(no_mangle)]
static BLOCK_OFFSETS: Global<BlockOffsets> = Global::new(BlockOffsets::UNKNOWN);

/// `REQ_OP_MASK`: <https://github.com/torvalds/linux/blob/v6.12/include/linux/blk_types.h#L314>
const OP_MASK: u32 = 0xff;
/// `enum req_op`; these three have never changed.
const OP_READ: u32 = 0;
const OP_WRITE: u32 = 1;
const OP_FLUSH: u32 = 2;
/// `BLK_STS_AGAIN`: whoever asked not to wait is told to ask again. No I/O has failed.
const AGAIN: i32 = 12;
/// `EAGAIN`, as an errno below zero.
const AGAIN_ERRNO: i32 = -11;

/// Bytes of a bio that have all that is read of it when it is queued.
const BIO_HEAD: usize = 48;
/// Bytes of a request that have all that is read of it on kernels of 64 bits.
const REQUEST_HEAD: usize = 64;
/// Bios merged in front of one request that are followed.
const MAX_FRONT: usize = 8;

/// First sector and bytes of a bio, as they are left.
#[inline(always)]
fn extent(bio: &Head<BIO_HEAD>) -> (u64, u64) {
    let size: u32 = bio.read(global!(BLOCK_OFFSETS, bio_size));
    (bio.read(global!(BLOCK_OFFSETS, bio_sector)), size as u64)
}

/// Programs that take one argument of a tracepoint: kernels that pass the queue first have their own.
macro_rules! hooks {
    ($($name:ident: $tracepoint:literal, $argument:literal => $then:path;)+) => {$(
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $name(ctx: RawTracePointContext) -> i32 {
            $then(&ctx, Address(ctx.arg::<u64>($argument)));
            0
        }
    )+};
}

hooks! {
    // `(bio)`, before 5.11 `(q, bio)`
    block_bio_queue: "block_bio_queue", 0 => bio_queued;
    block_bio_queue_after_queue: "block_bio_queue", 1 => bio_queued;
    // `(bio)`, before 5.11 `(q, rq, bio)`
    block_bio_backmerge: "block_bio_backmerge", 0 => bio_appended;
    block_bio_backmerge_after_queue: "block_bio_backmerge", 2 => bio_appended;
    block_bio_frontmerge: "block_bio_frontmerge", 0 => bio_put_before;
    block_bio_frontmerge_after_queue: "block_bio_frontmerge", 2 => bio_put_before;
    // `(bio, sector)`, before 5.11 `(q, bio, sector)`
    block_split: "block_split", 0 => bio_split;
    block_split_after_queue: "block_split", 1 => bio_split;
    // `(q, bio)`
    block_bio_complete: "block_bio_complete", 1 => bio_completed;
    // `(rq)`, before 5.11 `(q, rq)`
    block_rq_merge: "block_rq_merge", 0 => request_merged;
    block_rq_merge_after_queue: "block_rq_merge", 1 => request_merged;
    block_rq_issue: "block_rq_issue", 0 => request_issued;
    block_rq_issue_after_queue: "block_rq_issue", 1 => request_issued;
    // `(rq, error, bytes)`
    block_rq_complete: "block_rq_complete", 0 => request_completed;
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper reads the clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn bio_queued(_ctx: &RawTracePointContext, bio: Address) {
    let Some(place) = pending::insert(bio.0) else { return };
    let head = Head::of(bio);
    let (sector, bytes) = extent(&head);
    let op_flags = head.read(global!(BLOCK_OFFSETS, bio_opf));
    // SAFETY: the place is this bio's. The helpers write COMM_LEN bytes, or take nothing.
    unsafe {
        let pid_tgid = bpf_get_current_pid_tgid();
        let Pending { comm, .. } = &mut *place;
        bpf_get_current_comm(comm.as_mut_ptr().cast(), COMM_LEN as u32);
        *place = Pending {
            queued_ns: now(),
            issued_ns: 0,
            task: bpf_get_current_task(),
            sector,
            bytes,
            tgid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            op_flags,
            flags: 0,
            status: 0,
            reserved: 0,
            comm: *comm,
        };
    }
}

/// The bio goes into a request that another one began.
#[inline(always)]
fn bio_appended(_ctx: &RawTracePointContext, bio: Address) {
    pending::remove(bio.0);
}

/// The bio becomes the first of a request; the kernel has not yet linked the others to it.
#[inline(always)]
fn bio_put_before(_ctx: &RawTracePointContext, bio: Address) {
    if let Some(pending) = pending::find(bio.0) {
        // SAFETY: its place stays; nobody else knows of this bio.
        unsafe { (*pending).flags |= Pending::IN_FRONT };
    }
}

/// The first part of a bio has become one of its own, which knows the rest as `bi_private`. Device
/// mapper gives the rest alone, which is known already.
#[inline(always)]
fn bio_split(_ctx: &RawTracePointContext, split: Address) {
    let rest = split.follow(global!(BLOCK_OFFSETS, bio_private));
    if pending::find(split.0).is_some() {
        return;
    }
    let Some(known) = pending::find(rest.0) else { return };
    let Some(place) = pending::insert(split.0) else { return };
    // SAFETY: the places are of these bios, which the task that splits has alone.
    unsafe {
        *place = *known;
        ((*place).sector, (*place).bytes) = extent(&Head::of(split));
        ((*known).sector, (*known).bytes) = extent(&Head::of(rest));
    }
}

/// The request is appended to another one.
#[inline(always)]
fn request_merged(_ctx: &RawTracePointContext, request: Address) {
    pending::remove(request.follow(global!(BLOCK_OFFSETS, rq_bio)).0);
}

#[inline(always)]
fn request_issued(_ctx: &RawTracePointContext, request: Address) {
    let bio = request.follow(global!(BLOCK_OFFSETS, rq_bio));
    let known = pending::find(bio.0).or_else(|| pending::find(request.0));
    let now = now();
    let Some(known) = known else {
        let Some(place) = pending::insert(request.0) else { return };
        // SAFETY: the place is this request's.
        unsafe { *place = Pending { issued_ns: now, ..Pending::new_zeroed() } };
        return;
    };
    // SAFETY: its place stays; a request is issued by one CPU at a time.
    unsafe {
        (*known).issued_ns = now;
        if (*known).flags & Pending::IN_FRONT != 0 {
            (*known).flags &= !Pending::IN_FRONT;
            take_followers(&mut *known, bio);
        }
    }
}

/// Takes the queue time of the bios that were there before others were put in front of them.
#[inline(always)]
fn take_followers(first: &mut Pending, mut bio: Address) {
    for _ in 0..MAX_FRONT {
        bio = bio.follow(global!(BLOCK_OFFSETS, bio_next));
        let Some(next) = pending::find(bio.0) else { return };
        // SAFETY: its place stays.
        let Pending { queued_ns, flags, .. } = unsafe { *next };
        first.queued_ns = first.queued_ns.min(queued_ns);
        pending::remove(bio.0);
        if flags & Pending::IN_FRONT == 0 {
            return;
        }
    }
}

#[inline(always)]
fn request_completed(ctx: &RawTracePointContext, request: Address) {
    let status = match global!(BLOCK_OFFSETS, complete_errno) {
        1 => ctx.arg::<i32>(1),
        _ => ctx.arg::<u32>(1) as u8 as i32,
    };
    let bytes = ctx.arg::<u32>(2);
    let now = now();
    let head = Head::<REQUEST_HEAD>::of(request);
    let bio = Address(head.read(global!(BLOCK_OFFSETS, rq_bio)));
    let left: u32 = head.read(global!(BLOCK_OFFSETS, rq_data_len));
    let op_flags: u32 = head.read(global!(BLOCK_OFFSETS, rq_cmd_flags));
    let rq_flags: u32 = head.read(global!(BLOCK_OFFSETS, rq_flags));
    let sector: u64 = head.read(global!(BLOCK_OFFSETS, rq_sector));

    let of_bio = pending::find(bio.0);
    let key = if of_bio.is_some() { bio.0 } else { request.0 };
    let known = of_bio.or_else(|| pending::find(key));
    let mut pending = match known {
        // SAFETY: its place stays, and the request ends on one CPU.
        Some(known) => unsafe { *known },
        None => Pending::new_zeroed(),
    };
    if pending.flags & Pending::IN_PARTS == 0 {
        (pending.sector, pending.bytes) = (sector, 0);
    }
    pending.bytes += bytes as u64;
    if pending.status == 0 {
        pending.status = status;
    }
    // The data of a write that asks for flushes is done before the request is: the flush machinery
    // ends it once more. Its own requests are of the operation flush.
    let in_sequence =
        rq_flags & global!(BLOCK_OFFSETS, flush_seq) != 0 && op_flags & OP_MASK != OP_FLUSH;
    if bytes < left || in_sequence {
        pending.flags |= Pending::IN_PARTS;
        if key != request.0 {
            pending::remove(key);
        }
        if let Some(place) = pending::insert(request.0) {
            // SAFETY: the place is this request's.
            unsafe { *place = pending };
        }
        return;
    }
    if known.is_some() {
        pending::remove(key);
    }
    // As it was asked for: the flush machinery takes its flags off.
    if pending.queued_ns == 0 {
        pending.op_flags = op_flags;
        pending.queued_ns = allocated_ns(request, now);
    }
    let disk = match global!(BLOCK_OFFSETS, rq_disk) {
        MISSING => {
            let queue = Address(head.read(global!(BLOCK_OFFSETS, rq_queue)));
            queue.follow(global!(BLOCK_OFFSETS, queue_disk))
        }
        offset => request.follow(offset),
    };
    finished(&pending, disk, bio, now);
}

/// When the request was allocated, `CLOCK_BOOTTIME`; 0 where the kernel did not note it.
#[inline(always)]
fn allocated_ns(request: Address, now: u64) -> u64 {
    let start: u64 = request.read(global!(BLOCK_OFFSETS, rq_start_time));
    // SAFETY: the helper reads the clock, which is the kernel's for this.
    let monotonic = unsafe { bpf_ktime_get_ns() };
    if start == 0 { 0 } else { now.saturating_sub(monotonic.saturating_sub(start)) }
}

/// Only bios that no request has carried to their end come here: those of devices that have no
/// requests, and those that failed before they got one.
#[inline(always)]
fn bio_completed(_ctx: &RawTracePointContext, bio: Address) {
    let Some(known) = pending::find(bio.0) else { return };
    // SAFETY: its place stays, and the bio ends on one CPU.
    let mut pending = unsafe { *known };
    pending::remove(bio.0);
    pending.status = bio.read::<u8>(global!(BLOCK_OFFSETS, bio_status)) as i32;
    let disk = match global!(BLOCK_OFFSETS, bio_disk) {
        MISSING => {
            let device = bio.follow(global!(BLOCK_OFFSETS, bio_bdev));
            device.follow(global!(BLOCK_OFFSETS, bdev_disk))
        }
        offset => bio.follow(offset),
    };
    finished(&pending, disk, bio, now());
}

/// Sums it up, and sends it where it is an event.
#[inline(always)]
fn finished(pending: &Pending, disk: Address, bio: Address, now: u64) {
    let blkg = bio.follow(global!(BLOCK_OFFSETS, bio_blkg));
    let css =
        blkg.follow(global!(BLOCK_OFFSETS, blkg_blkcg)).member(global!(BLOCK_OFFSETS, blkcg_css));
    let cgroup = Cgroup::of_css(css);
    let owner = Place::new(global!(BLOCK_OFFSETS, io_hierarchy), cgroup.id());
    // `major` and `first_minor` are next to each other in all kernels.
    let [major, minor]: [u32; 2] = disk.read(global!(BLOCK_OFFSETS, disk_major));
    let device = major << 20 | minor;
    let measure = match pending.op_flags & OP_MASK {
        OP_READ => Measure::BlockRead,
        OP_WRITE => Measure::BlockWrite,
        _ => Measure::BlockOther,
    };
    let begun = if pending.queued_ns != 0 { pending.queued_ns } else { pending.issued_ns };
    let total_ns = if begun != 0 { now.saturating_sub(begun) } else { 0 };
    if begun != 0 {
        totals::add(owner, measure, device, total_ns, pending.bytes);
    }
    let is_slow = total_ns >= global!(BLOCK_OFFSETS, slower_us) as u64 * 1000;
    let has_failed = !matches!(pending.status, 0 | AGAIN | AGAIN_ERRNO);
    if is_slow || has_failed || global!(BLOCK_OFFSETS, all) == 1 {
        send(pending, disk, css, owner, device, now);
    }
}

/// A record that is made, on this CPU.
#[repr(C)]
struct Draft {
    /// An interrupt may end an I/O while a record is made.
    busy: u64,
    record: Block,
}

/// Too large for a program's stack.
#[map]
static BLOCK_RECORD: PerCpuArray<Draft> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn send(pending: &Pending, disk: Address, css: Address, owner: Place, device: u32, now: u64) {
    let Some(draft) = BLOCK_RECORD.get_ptr_mut(0) else { return };
    // SAFETY: the draft belongs to this CPU, and to this program unless it is busy.
    unsafe {
        let busy = &raw mut (*draft).busy;
        if busy.read_volatile() != 0 {
            return emit::lost(Kind::Block);
        }
        busy.write_volatile(1);
        fill_and_send(&mut (*draft).record, pending, disk, css, owner, device, now);
        busy.write_volatile(0);
    }
}

#[inline(always)]
fn fill_and_send(
    record: &mut Block,
    pending: &Pending,
    disk: Address,
    css: Address,
    owner: Place,
    device: u32,
    now: u64,
) {
    *record = Block {
        header: emit::header(Kind::Block, size_of::<Block>()),
        process: TaskIdentity::new_zeroed(),
        owner,
        sector: pending.sector,
        bytes: pending.bytes,
        queued_ns: pending.queued_ns,
        issued_ns: pending.issued_ns,
        device,
        op_flags: pending.op_flags,
        status: pending.status,
        flags: 0,
        submitter_tgid: pending.tgid,
        reserved: 0,
        submitter_comm: pending.comm,
        disk: disk.read::<[u8; DISK_NAME_LEN]>(global!(BLOCK_OFFSETS, disk_name)),
    };
    record.header.time_ns = now;
    let has_owner = owner.id != 0;
    if has_owner {
        record.flags |= Block::OWNER_BLKCG;
        if Cgroup::of_css(css).level() == 0 {
            record.flags |= Block::OWNER_IS_ROOT;
        }
    }
    let task = Task(Address(pending.task));
    let mut names_process = false;
    if is_still(task, pending) {
        let cgroups = task.0.follow(global!(TASK_OFFSETS, cgroups));
        let of_task = cgroups.follow(global!(BLOCK_OFFSETS, css_set_io));
        let is_kernel = task.is_kernel_thread();
        if is_kernel {
            record.flags |= Block::SUBMITTER_IS_KERNEL;
        }
        if !has_owner && !is_kernel {
            let cgroup = Cgroup::of_css(of_task);
            record.owner = Place::new(owner.hierarchy, cgroup.id());
            record.flags |= Block::OWNER_SUBMITTER;
        }
        names_process = of_task == css || record.flags & Block::OWNER_SUBMITTER != 0;
        if names_process {
            task.identify(&mut record.process);
        }
    }
    let process = if names_process { Some(&record.process) } else { None };
    if filter::may_want_owned(record.owner, pending.tgid, process) {
        emit::send(Kind::Block, record.as_bytes());
    }
}

/// Whether the task is still the one that queued it: its memory may have become another's, which then
/// has started later, or nobody's.
#[inline(always)]
fn is_still(task: Task, pending: &Pending) -> bool {
    let started: u64 = task.0.read(global!(TASK_OFFSETS, start_boottime));
    task.tid() == pending.tid
        && task.tgid() == pending.tgid
        && pending.tid != 0
        && started <= pending.queued_ns
}
