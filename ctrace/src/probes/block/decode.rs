//! From records to events.

use ctrace_common::{Kind, event::block::Block};
use zerocopy::FromBytes;

use crate::{
    event::{self, CgroupKey, OwnerVia, Payload, Subject, Submitter, comm_text},
    kernel::Btf,
    probes::{DecodeError, Decoder},
};

#[cfg(test)]
mod tests;

pub struct BlockDecoder {
    ops: Ops,
    letters: Letters,
}

/// Operations by their number, which is not the same in all kernels.
struct Ops(Vec<(u32, &'static str)>);

/// The bits of `bi_opf` that blktrace has a letter for; 0 where this kernel has no such bit.
struct Letters {
    preflush: u32,
    fua: u32,
    ahead: u32,
    sync: u32,
    meta: u32,
    atomic: u32,
}

/// `REQ_OP_MASK`, the same in all kernels from 4.10 on.
const OP_MASK: u32 = 0xff;

/// Kernel's names and ctrace's.
const OPS: [(&str, &str); 17] = [
    ("REQ_OP_READ", "read"),
    ("REQ_OP_WRITE", "write"),
    ("REQ_OP_FLUSH", "flush"),
    ("REQ_OP_DISCARD", "discard"),
    ("REQ_OP_SECURE_ERASE", "secure_erase"),
    ("REQ_OP_WRITE_SAME", "write_same"),
    ("REQ_OP_WRITE_ZEROES", "write_zeroes"),
    ("REQ_OP_ZONE_APPEND", "zone_append"),
    ("REQ_OP_ZONE_OPEN", "zone_open"),
    ("REQ_OP_ZONE_CLOSE", "zone_close"),
    ("REQ_OP_ZONE_FINISH", "zone_finish"),
    ("REQ_OP_ZONE_RESET", "zone_reset"),
    ("REQ_OP_ZONE_RESET_ALL", "zone_reset_all"),
    ("REQ_OP_SCSI_IN", "scsi_in"),
    ("REQ_OP_SCSI_OUT", "scsi_out"),
    ("REQ_OP_DRV_IN", "drv_in"),
    ("REQ_OP_DRV_OUT", "drv_out"),
];

impl BlockDecoder {
    pub fn new(btf: &Btf) -> Self {
        let number = |name| btf.enum_value(name).and_then(|value| u32::try_from(value).ok());
        let ops = OPS.iter().filter_map(|(kernels, ours)| Some((number(kernels)?, *ours)));
        let bit = |name| number(name).and_then(|bit| 1_u32.checked_shl(bit)).unwrap_or(0);
        Self {
            ops: Ops(ops.collect()),
            letters: Letters {
                preflush: bit("__REQ_PREFLUSH"),
                fua: bit("__REQ_FUA"),
                ahead: bit("__REQ_RAHEAD"),
                sync: bit("__REQ_SYNC"),
                meta: bit("__REQ_META"),
                atomic: bit("__REQ_ATOMIC"),
            },
        }
    }
}

impl Decoder for BlockDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Block]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let (block, _) = Block::read_from_prefix(record)
            .map_err(|_| DecodeError::Short { got: record.len(), want: size_of::<Block>() })?;
        let Block {
            header,
            process,
            owner,
            sector,
            bytes,
            queued_ns,
            issued_ns,
            device,
            op_flags,
            status,
            flags,
            submitter_tgid,
            reserved: _,
            submitter_comm,
            disk,
        } = block;
        let op = self.ops.name(op_flags & OP_MASK);
        let since = |then: u64, now: u64| (then != 0).then(|| now.saturating_sub(then));
        let is = |bit| flags & bit != 0;
        let payload = event::Block {
            device: (device >> 20, device & 0xf_ffff),
            disk: text(&disk),
            rwbs: self.letters.rwbs(op, op_flags),
            sector: (sector != u64::MAX).then_some(sector),
            bytes,
            queue_ns: since(queued_ns, issued_ns).filter(|_| issued_ns != 0),
            device_ns: since(issued_ns, header.time_ns),
            total_ns: since(queued_ns, header.time_ns),
            error: error_name(status),
            submitter: Submitter {
                pid: (submitter_tgid != 0).then_some(submitter_tgid),
                comm: comm_text(&submitter_comm).filter(|_| submitter_tgid != 0),
            },
            owner_via: match () {
                () if is(Block::OWNER_BLKCG) => Some(OwnerVia::Blkcg),
                () if is(Block::OWNER_SUBMITTER) => Some(OwnerVia::Submitter),
                () => None,
            },
            root_writeback: owner.hierarchy != 0
                && is(Block::OWNER_IS_ROOT)
                && is(Block::SUBMITTER_IS_KERNEL)
                && op == Some("write"),
            op: op.map(Into::into).unwrap_or_else(|| format!("op {}", op_flags & OP_MASK).into()),
        };
        let owner =
            (owner.id != 0).then_some(CgroupKey { hierarchy: owner.hierarchy, id: owner.id });
        Ok((Subject::of_record(&process, owner), Payload::Block(payload.into())))
    }
}

impl Ops {
    fn name(&self, number: u32) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    }
}

impl Letters {
    /// The letters of blktrace, in the order of `blk_fill_rwbs`:
    /// <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/blktrace.c#L1893>.
    fn rwbs(&self, op: Option<&str>, op_flags: u32) -> String {
        let mut letters = String::with_capacity(8);
        if op_flags & self.preflush != 0 {
            letters.push('F');
        }
        match op {
            Some("read") => letters.push('R'),
            Some("write" | "write_same") => letters.push('W'),
            Some("discard") => letters.push('D'),
            Some("secure_erase") => letters.push_str("DE"),
            Some("flush") => letters.push('F'),
            _ => letters.push('N'),
        }
        for (bit, letter) in [
            (self.fua, 'F'),
            (self.ahead, 'A'),
            (self.sync, 'S'),
            (self.meta, 'M'),
            (self.atomic, 'U'),
        ] {
            if op_flags & bit != 0 {
                letters.push(letter);
            }
        }
        letters
    }
}

/// Text up to its NUL; bytes that are not UTF-8 become U+FFFD.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The errno that the caller gets, by its name; absent: it did not fail.
///
/// As in `blk_errors`: <https://github.com/torvalds/linux/blob/v6.12/block/blk-core.c#L144>. The
/// numbers from 14 to 18 moved by one in 6.11, and no type tells which they are.
fn error_name(status: i32) -> Option<String> {
    let errno = match status {
        0 => return None,
        ..0 => status.checked_neg().unwrap_or(i32::MAX),
        1 => libc::EOPNOTSUPP,
        2 => libc::ETIMEDOUT,
        3 => libc::ENOSPC,
        4 => libc::ENOLINK,
        5 => libc::EREMOTEIO,
        6 => libc::EBADE,
        7 => libc::ENODATA,
        8 => libc::EILSEQ,
        9 => libc::ENOMEM,
        10 => libc::EIO,
        11 => libc::EREMCHG,
        12 => libc::EAGAIN,
        13 => libc::EBUSY,
        19 => libc::EINVAL,
        other => return Some(format!("blk_status {other}")),
    };
    let name = nix::errno::Errno::from_raw(errno);
    Some(match name {
        nix::errno::Errno::UnknownErrno => format!("errno {errno}"),
        name => format!("{name:?}"),
    })
}
