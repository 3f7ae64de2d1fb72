//! I/O of a block device.

use std::borrow::Cow;

use super::{
    Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
    text,
};

/// How the owner is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerVia {
    /// The kernel charges it to that cgroup.
    Blkcg,
    /// The kernel charges it to none: it is the submitter's.
    Submitter,
}

impl OwnerVia {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            OwnerVia::Blkcg => "blkcg",
            OwnerVia::Submitter => "submitter",
        }
    }
}

/// The task that queued it, whoever it was queued for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Submitter {
    pub pid: Option<u32>,
    pub comm: Option<String>,
}

/// A request that was finished, or a bio where the device has no requests. The event's subject is its
/// owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Major and minor number of the disk.
    pub device: (u32, u32),
    pub disk: Option<String>,
    /// What blktrace shows of operation and flags.
    pub rwbs: String,
    pub op: Cow<'static, str>,
    /// Units of 512 bytes from the start of the disk; absent: it has no place.
    pub sector: Option<u64>,
    pub bytes: u64,
    /// From queued to given to the driver; absent: one of both was not seen, or there is none.
    pub queue_ns: Option<u64>,
    /// From given to the driver, for the last time, to finished.
    pub device_ns: Option<u64>,
    pub total_ns: Option<u64>,
    /// Name of the errno.
    pub error: Option<String>,
    pub submitter: Submitter,
    /// Absent: the owner is not known.
    pub owner_via: Option<OwnerVia>,
    /// Written back by the kernel and charged to the root of a v1 hierarchy: nobody knows for whom.
    pub root_writeback: bool,
}

impl Submitter {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "pid",
            ty: Type::Number,
            doc: "Process id in the initial pid namespace",
            get: |submitter| submitter.pid.into(),
        },
        Field {
            name: "comm",
            ty: Type::Text,
            doc: "Name of the task; bytes that are not UTF-8 are U+FFFD",
            get: |submitter| submitter.comm.as_ref().into(),
        },
    ];
}

impl Block {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "device",
            ty: Type::Text,
            doc: "The disk's major and minor number: 254:0",
            get: |block| format!("{}:{}", block.device.0, block.device.1).into(),
        },
        Field {
            name: "disk",
            ty: Type::Text,
            doc: "The disk's name: vda",
            get: |block| block.disk.as_ref().into(),
        },
        Field {
            name: "rwbs",
            ty: Type::Text,
            doc: "Operation and flags in the letters of blktrace, as it was queued",
            get: |block| block.rwbs.as_str().into(),
        },
        Field {
            name: "op",
            ty: Type::Text,
            doc: "read, write, flush, discard, write_zeroes, drv_in, …: the kernel's REQ_OP_*",
            get: |block| Value::Text(Cow::Borrowed(&block.op)),
        },
        Field {
            name: "sector",
            ty: Type::Number,
            doc: "First sector, in units of 512 bytes from the start of the disk; null: it has none",
            get: |block| block.sector.into(),
        },
        Field {
            name: "bytes",
            ty: Type::Bytes,
            doc: "Bytes of all of it, what failed included",
            get: |block| block.bytes.into(),
        },
        Field {
            name: "queue_ns",
            ty: Type::Number,
            doc: "Nanoseconds from queued (block_bio_queue) to given to the driver for the last time; \
                  null: the device has no requests, the driver never got it, or its beginning was \
                  not seen",
            get: |block| block.queue_ns.into(),
        },
        Field {
            name: "device_ns",
            ty: Type::Number,
            doc: "Nanoseconds from given to the driver for the last time to finished; null as above",
            get: |block| block.device_ns.into(),
        },
        Field {
            name: "total_ns",
            ty: Type::Number,
            doc: "Nanoseconds from queued to finished; of requests that were under way when ctrace \
                  began, from their allocation; null: unknown. Time that the io controller held it \
                  back for a limit is before it",
            get: |block| block.total_ns.into(),
        },
        Field {
            name: "error",
            ty: Type::Text,
            doc: "Name of the errno, EIO; null: it did not fail",
            get: |block| block.error.as_ref().into(),
        },
        Field {
            name: "submitter",
            ty: Type::Object,
            doc: "The task that queued it, for itself or for the owner: a kworker writes back what \
                  others wrote",
            get: |block| object(Submitter::FIELDS, &block.submitter),
        },
        Field {
            name: "owner_via",
            ty: Type::Text,
            doc: "How the owner, whose cgroup the event is counted on, is known: blkcg (the kernel \
                  charges it to that cgroup) or submitter (it charges it to none); null: unknown",
            get: |block| block.owner_via.map(OwnerVia::name).into(),
        },
        Field {
            name: "root_writeback",
            ty: Type::Flag,
            doc: "Whether the kernel wrote it back and charged it to the root cgroup, as it does \
                  with all buffered writes where blkio is on cgroup v1: who wrote is not known",
            get: |block| block.root_writeback.into(),
        },
    ];
}

impl Detail for Block {
    fn type_name(&self) -> &'static str {
        "block"
    }

    fn key(&self) -> &'static str {
        "block"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        match self.error {
            Some(_) => Severity::Bad,
            None => Severity::Notable,
        }
    }

    fn headline(&self, _subject: Option<&Subject>) -> String {
        let (major, minor) = self.device;
        let disk = self.disk.clone().unwrap_or_else(|| format!("{major}:{minor}"));
        let mut line = format!("{} {}", self.op, text::bytes(self.bytes));
        if let Some(sector) = self.sector {
            line += &format!(" at sector {sector}");
        }
        line += &format!(" of {disk}");
        if let Some(error) = &self.error {
            line += &format!(" failed: {error},");
        }
        match (self.total_ns.or(self.device_ns), self.queue_ns, self.device_ns) {
            (Some(total), Some(queue), Some(device)) => {
                let [total, queue, device] = [total, queue, device].map(text::duration);
                line += &format!(" after {total} (queued {queue}, device {device})");
            }
            (Some(total), ..) => line += &format!(" after {}", text::duration(total)),
            (None, ..) => {}
        }
        if let Submitter { pid: Some(pid), comm } = &self.submitter {
            line += &match comm {
                Some(comm) => format!(", by {comm}[{pid}]"),
                None => format!(", by pid {pid}"),
            };
        }
        if self.root_writeback {
            line += ", for whom is not known on cgroup v1";
        }
        line.trim_end_matches(',').to_owned()
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow() -> Block {
        Block {
            device: (254, 0),
            disk: Some("vda".to_owned()),
            rwbs: "WS".to_owned(),
            op: "write".into(),
            sector: Some(2048),
            bytes: 4096,
            queue_ns: Some(1_000_000),
            device_ns: Some(72_000_000),
            total_ns: Some(73_000_000),
            submitter: Submitter { pid: Some(77), comm: Some("fio".to_owned()) },
            owner_via: Some(OwnerVia::Blkcg),
            ..Block::default()
        }
    }

    #[test]
    fn slow_in_a_line() {
        assert_eq!(
            slow().headline(None),
            "write 4.0 KiB at sector 2048 of vda after 73.000 ms (queued 1.000 ms, device \
             72.000 ms), by fio[77]"
        );
    }

    #[test]
    fn failed_without_requests() {
        let failed = Block {
            error: Some("EIO".to_owned()),
            queue_ns: None,
            device_ns: None,
            disk: None,
            ..slow()
        };
        assert_eq!(
            failed.headline(None),
            "write 4.0 KiB at sector 2048 of 254:0 failed: EIO, after 73.000 ms, by fio[77]"
        );
    }

    #[test]
    fn what_is_unknown_is_left_out_or_said() {
        let flush = Block { op: "flush".into(), device: (7, 1), ..Block::default() };
        assert_eq!(flush.headline(None), "flush 0 B of 7:1");
        let failed = Block { error: Some("EIO".to_owned()), ..flush };
        assert_eq!(failed.headline(None), "flush 0 B of 7:1 failed: EIO");
        let nobody = Block { root_writeback: true, ..slow() };
        assert!(nobody.headline(None).ends_with("by fio[77], for whom is not known on cgroup v1"));
    }

    #[test]
    fn json() {
        let slow = slow();
        let Value::Object(members) = slow.value() else { panic!("no object") };
        let get = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        assert_eq!(get("device"), Some(&Value::Text("254:0".into())));
        assert_eq!(get("owner_via"), Some(&Value::Text("blkcg".into())));
        assert_eq!(get("error"), Some(&Value::Null));
        assert_eq!(get("bytes"), Some(&Value::Number(4096)));
    }
}
