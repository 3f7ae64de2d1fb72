//! The tail of the kernel's log, `/dev/kmsg` (`Documentation/ABI/testing/dev-kmsg`).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

mod oom;

pub use oom::{InvokedLine, KilledLine, OomConstraintLine};

/// One line of the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KmsgRecord {
    /// The record's number since boot; the next record has the next one.
    pub sequence: u64,
    /// Microseconds since boot on printk's own clock, which does not count suspended time.
    pub time_us: u64,
    /// Whether the kernel itself wrote it: what is written to `/dev/kmsg` has another facility.
    pub is_kernels: bool,
    /// The text, with the kernel's escapes undone. Bytes that are not UTF-8 are replaced.
    pub text: String,
}

impl KmsgRecord {
    /// Reads what one read(2) of `/dev/kmsg` gives: `6,339,5140900,-;text\n KEY=value\n`, where
    /// the lines after the first are the record's dictionary, which is left out.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let semicolon = raw.iter().position(|&b| b == b';')?;
        let mut fields = str::from_utf8(&raw[..semicolon]).ok()?.split(',');
        // <https://docs.kernel.org/admin-guide/abi-testing.html>, dev-kmsg: facility times 8, plus
        // the level. The kernel's is 0.
        let priority: u32 = fields.next()?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        let time_us = fields.next()?.parse().ok()?;
        let text = raw[semicolon + 1..].split(|&b| b == b'\n').next()?;
        Some(Self {
            sequence,
            time_us,
            is_kernels: priority >> 3 == 0,
            text: String::from_utf8_lossy(&unescape(text)).into_owned(),
        })
    }
}

/// Undoes `\x0a` and the like: how the kernel writes what is not printable ASCII, and `\` itself.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| (digit as char).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let escaped = match *text {
            [b'\\', b'x', high, low, ..] => hex(high).zip(hex(low)),
            _ => None,
        };
        (text, _) = match escaped {
            Some((high, low)) => (&text[4..], out.push((high << 4 | low) as u8)),
            None => (rest, out.push(byte)),
        };
    }
    out
}

/// A reader of the records that are logged from now on.
pub struct Kmsg {
    file: File,
    buffer: Box<[u8]>,
    last: Option<u64>,
    lost: u64,
}

/// No record is longer: `CONSOLE_EXT_LOG_MAX`, today `PRINTK_MESSAGE_MAX` (kernel/printk).
const RECORD_MAX: usize = 8192;

impl Kmsg {
    /// Opens the log behind its last record. Reads do not block.
    ///
    /// # Errors
    /// Where the device is missing (most containers) or `CAP_SYSLOG` is (`dmesg_restrict`).
    pub fn open_at_end() -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        let buffer = vec![0; RECORD_MAX].into_boxed_slice();
        Ok(Self { file, buffer, last: None, lost: 0 })
    }

    /// All records since the last call. Records of an unknown form are skipped; those that the
    /// kernel overwrote before they were read are counted in [`Kmsg::lost`].
    pub fn drain(&mut self) -> Vec<KmsgRecord> {
        let mut records = Vec::new();
        loop {
            let raw = match self.file.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => &self.buffer[..len],
                Err(error) => match error.raw_os_error() {
                    // The oldest unread records are overwritten; the next read goes on behind.
                    Some(libc::EPIPE | libc::EINTR) => continue,
                    // EAGAIN: no more. Any other error would come again at once.
                    _ => break,
                },
            };
            let Some(record) = KmsgRecord::parse(raw) else { continue };
            let expected = self.last.map_or(record.sequence, |last| last + 1);
            self.lost += record.sequence.saturating_sub(expected);
            self.last = Some(record.sequence);
            records.push(record);
        }
        records
    }

    /// Records missed since the first one that was read.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl AsRawFd for Kmsg {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records() {
        let raw = b"6,339,5140900,-,caller=T1;a \\x5c b\\xc3\\xa4\\x0a\n SUBSYSTEM=x\n";
        let record = KmsgRecord::parse(raw).unwrap();
        assert_eq!((record.sequence, record.time_us), (339, 5_140_900));
        assert_eq!(record.text, "a \\ b\u{e4}\n");
        assert_eq!(KmsgRecord::parse(b"6,339;x"), None);
        assert_eq!(KmsgRecord::parse(b"6,339,1,-"), None);
        assert_eq!(unescape(br"\x4\xzz\x"), br"\x4\xzz\x");
    }

    #[test]
    fn this_kernel() {
        let (mut kmsg, mut log) =
            match (Kmsg::open_at_end(), OpenOptions::new().write(true).open("/dev/kmsg")) {
                (Ok(kmsg), Ok(log)) => (kmsg, log),
                (kmsg, log) => {
                    println!("skipped: {:?} {:?}", kmsg.err(), log.err());
                    return;
                }
            };
        let mark = format!("ctrace test {} \\ \u{e4}", std::process::id());
        // Readers see a record once its newline is there: until then it may be continued.
        log.write_all(format!("{mark}\n").as_bytes()).unwrap();
        assert!(kmsg.drain().iter().any(|record| record.text == mark));
        assert_eq!(kmsg.lost(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
            KmsgRecord::parse(&raw);
            let _ = KmsgRecord::parse(&[b"6,1,2,-;".as_slice(), &raw].concat()).unwrap();
        }

        #[test]
        fn escapes_come_back(text in ".{0,60}") {
            let escape = |b: u8| match b {
                b'\\' | 0..b' ' | 127.. => format!("\\x{b:02x}"),
                _ => (b as char).to_string(),
            };
            let raw = format!("6,1,2,-;{}\n", text.bytes().map(escape).collect::<String>());
            prop_assert_eq!(KmsgRecord::parse(raw.as_bytes()).unwrap().text, text);
        }
    }
}
