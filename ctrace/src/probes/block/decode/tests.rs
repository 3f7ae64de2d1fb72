use ctrace_common::Place;
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::*;

/// With the numbers of Linux 6.12.
fn decoder() -> BlockDecoder {
    BlockDecoder {
        ops: Ops(vec![(0, "read"), (1, "write"), (2, "flush"), (3, "discard"), (34, "drv_in")]),
        letters: Letters {
            preflush: 1 << 18,
            fua: 1 << 17,
            ahead: 1 << 19,
            sync: 1 << 11,
            meta: 1 << 12,
            atomic: 1 << 27,
        },
    }
}

fn decode(block: &Block) -> (Subject, event::Block) {
    match decoder().decode(block.as_bytes()) {
        Ok((subject, Payload::Block(block))) => (subject, *block),
        other => panic!("{other:?}"),
    }
}

fn record() -> Block {
    let mut block = Block::new_zeroed();
    block.header.time_ns = 10_000;
    (block.queued_ns, block.issued_ns) = (4_000, 7_000);
    (block.device, block.sector, block.bytes) = (254 << 20 | 3, 8, 512);
    block.op_flags = 1 | 1 << 11;
    block.disk[..3].copy_from_slice(b"vda");
    block.submitter_tgid = 5;
    block.submitter_comm[..2].copy_from_slice(b"dd");
    block
}

#[test]
fn times_and_names() {
    let (subject, block) = decode(&record());
    assert_eq!((block.queue_ns, block.device_ns), (Some(3_000), Some(3_000)));
    assert_eq!((block.total_ns, block.error), (Some(6_000), None));
    assert_eq!((block.device, block.disk.as_deref()), ((254, 3), Some("vda")));
    assert_eq!((block.rwbs.as_str(), &*block.op), ("WS", "write"));
    let submitter = Submitter { pid: Some(5), comm: Some("dd".to_owned()) };
    assert_eq!((block.submitter, block.owner_via), (submitter, None));
    assert_eq!((subject.is_process(), subject.cgroup), (false, None));
}

#[test]
fn what_was_not_seen_is_absent() {
    let (_, bio) = decode(&Block { issued_ns: 0, ..record() });
    assert_eq!((bio.queue_ns, bio.device_ns, bio.total_ns), (None, None, Some(6_000)));
    let (_, flush) = decode(&Block { queued_ns: 0, sector: u64::MAX, ..record() });
    assert_eq!((flush.queue_ns, flush.device_ns, flush.total_ns), (None, Some(3_000), None));
    assert_eq!(flush.sector, None);
    let (_, unseen) = decode(&Block { submitter_tgid: 0, ..record() });
    assert_eq!(unseen.submitter, Submitter::default());
}

#[test]
fn owners() {
    let owned =
        |hierarchy, flags| decode(&Block { owner: Place::new(hierarchy, 9), flags, ..record() });
    let (subject, block) = owned(4, Block::OWNER_BLKCG);
    let key = CgroupKey { hierarchy: 4, id: 9 };
    assert_eq!(subject.cgroup.map(|cgroup| cgroup.key), Some(key));
    assert_eq!((block.owner_via, block.root_writeback), (Some(OwnerVia::Blkcg), false));
    assert_eq!(owned(4, Block::OWNER_SUBMITTER).1.owner_via, Some(OwnerVia::Submitter));
    let of_kernel = Block::OWNER_BLKCG | Block::OWNER_IS_ROOT | Block::SUBMITTER_IS_KERNEL;
    assert!(owned(4, of_kernel).1.root_writeback, "v1");
    assert!(!owned(0, of_kernel).1.root_writeback, "v2 charges who wrote: it was the root's");
    assert!(!owned(4, of_kernel & !Block::OWNER_IS_ROOT).1.root_writeback);
}

/// As `blk_fill_rwbs` has them.
#[test]
fn letters() {
    for (op_flags, rwbs) in [
        (0, "R"),
        (1 << 19, "RA"),
        (1 << 12 | 1 << 19, "RAM"),
        (1 | 1 << 11, "WS"),
        (1 | 1 << 17 | 1 << 18 | 1 << 11, "FWFS"),
        (1 | 1 << 27, "WU"),
        (2 | 1 << 18, "FF"),
        (3, "D"),
        (34, "N"),
        (0xff, "N"),
    ] {
        let (_, block) = decode(&Block { op_flags, ..record() });
        assert_eq!(block.rwbs, rwbs, "{op_flags:#x}");
    }
    assert_eq!(decode(&Block { op_flags: 0xfe, ..record() }).1.op, "op 254");
}

#[test]
fn errors() {
    for (status, name) in [
        (0, None),
        (10, Some("EIO")),
        (1, Some("EOPNOTSUPP")),
        (3, Some("ENOSPC")),
        (-5, Some("EIO")),
        (-28, Some("ENOSPC")),
        (-4000, Some("errno 4000")),
        (15, Some("blk_status 15")),
        (i32::MIN, Some("errno 2147483647")),
    ] {
        assert_eq!(error_name(status).as_deref(), name, "{status}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..size_of::<Block>() + 16)) {
        if let Ok((_, payload)) = decoder().decode(&bytes) {
            payload.detail().headline(None);
            payload.detail().value();
        }
    }
}
