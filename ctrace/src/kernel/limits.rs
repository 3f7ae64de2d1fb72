//! What the files of a cgroup say of its limits, and how often they were hit. The parsers are pure.
//!
//! `Documentation/admin-guide/cgroup-v2.rst`, `Documentation/scheduler/sched-bwc.rst` and
//! `Documentation/admin-guide/cgroup-v1/memory.rst` of the kernel.

use std::{fs::File, mem::MaybeUninit, os::unix::fs::FileExt, path::Path};

use super::Version;

/// The longest of these files, `memory.stat` not among them, has some 500 bytes.
const LONGEST: usize = 4096;

/// CPU time that a cgroup may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of all CPUs together, in each period.
    pub quota_ns: u64,
    pub period_ns: u64,
}

/// How often the quota was used up, since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Periods in which the cgroup had anything to run.
    pub periods: u64,
    /// Those in which it had to wait.
    pub throttled_periods: u64,
    /// Nanoseconds that it waited: the sum over the CPUs.
    pub throttled_ns: u64,
}

/// Nanoseconds that tasks waited for memory, since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    /// One of them at least.
    pub some_ns: u64,
    /// All of them.
    pub full_ns: u64,
}

/// The file's content by `take`; absent where there is no such file, or the cgroup is gone.
pub fn read<T>(directory: &Path, file: &str, take: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    Kept::open(directory, file)?.read(take)
}

/// A file that is kept open: to read it anew costs a tenth of opening it. The cgroup may be removed
/// meanwhile.
pub struct Kept(File);

impl Kept {
    /// Absent where there is no such file.
    pub fn open(directory: &Path, file: &str) -> Option<Self> {
        Some(Self(File::open(directory.join(file)).ok()?))
    }

    /// What it has now, by `take`; absent where the cgroup is gone.
    pub fn read<T>(&self, take: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut bytes = [0; LONGEST];
        // These files are made anew for a read at 0, which gives all that there is room for.
        let length = self.0.read_at(&mut bytes, 0).ok()?;
        take(&bytes[..length])
    }
}

/// How many files one user of [`Kept`] may keep: so few that there is room for all else.
pub fn files_to_keep() -> usize {
    let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the call writes an rlimit to the place given.
    let limit = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr());
        limit.assume_init()
    };
    usize::try_from(limit.rlim_cur / 8).unwrap_or(usize::MAX)
}

/// The CPU quota of a cgroup; absent: none is set.
pub fn quota(directory: &Path, version: Version) -> Option<Quota> {
    match version {
        Version::V2 => read(directory, "cpu.max", parse_cpu_max),
        Version::V1 => {
            // -1: none.
            let quota = read(directory, "cpu.cfs_quota_us", parse_number)?;
            let period = read(directory, "cpu.cfs_period_us", parse_number)?;
            Some(Quota { quota_ns: us(quota)?, period_ns: us(period)? })
        }
    }
}

/// `50000 100000`; absent for `max 100000`.
pub fn parse_cpu_max(text: &[u8]) -> Option<Quota> {
    let mut words = words(text);
    let (quota, period) = (parse_number(words.next()?)?, parse_number(words.next()?)?);
    Some(Quota { quota_ns: us(quota)?, period_ns: us(period)? })
}

/// `cpu.stat` of either version; absent where it counts no periods.
pub fn parse_cpu_stat(text: &[u8]) -> Option<Throttled> {
    let throttled_ns = match keyed(text, "throttled_usec") {
        Some(time) => us(time)?,
        None => keyed(text, "throttled_time")?,
    };
    Some(Throttled {
        periods: keyed(text, "nr_periods")?,
        throttled_periods: keyed(text, "nr_throttled")?,
        throttled_ns,
    })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234` and a line with `full`; microseconds.
pub fn parse_pressure(text: &[u8]) -> Option<Stalled> {
    let total = |kind: &str| {
        let line = lines(text).find(|line| words(line).next() == Some(kind.as_bytes()))?;
        let total = words(line).find_map(|word| word.strip_prefix(b"total="))?;
        us(parse_number(total)?)
    };
    Some(Stalled { some_ns: total("some")?, full_ns: total("full")? })
}

/// The number after a name that begins a line.
pub fn keyed(text: &[u8], name: &str) -> Option<u64> {
    lines(text).find_map(|line| {
        let mut words = words(line);
        let is_it = words.next() == Some(name.as_bytes());
        parse_number(words.next().filter(|_| is_it)?)
    })
}

/// A number alone; absent for `max` and for what is below zero.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// A limit of memory in bytes; absent: none. v1 has a very large number for none: as many pages as
/// a `long` counts.
pub fn parse_memory_limit(text: &[u8]) -> Option<u64> {
    const NONE: u64 = (i64::MAX as u64) & !0xffff;
    parse_number(text).filter(|bytes| *bytes < NONE)
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn us(time: u64) -> Option<u64> {
    time.checked_mul(1000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu() {
        let quota = |quota_ns, period_ns| Some(Quota { quota_ns, period_ns });
        assert_eq!(parse_cpu_max(b"50000 100000\n"), quota(50_000_000, 100_000_000));
        assert_eq!(parse_cpu_max(b"max 100000\n"), None);
        let expected = Throttled { periods: 12, throttled_periods: 3, throttled_ns: 4_000 };
        let v1 = b"nr_periods 12\nnr_throttled 3\nthrottled_time 4000\nnr_bursts 0\nburst_time 0\n";
        assert_eq!(parse_cpu_stat(v1), Some(expected));
        let v2 = b"usage_usec 9\nuser_usec 8\nsystem_usec 1\nnr_periods 12\nnr_throttled 3\n\
                   throttled_usec 4\nnr_bursts 0\nburst_usec 0\n";
        assert_eq!(parse_cpu_stat(v2), Some(expected));
        // Without the controller v2 counts the time alone.
        assert_eq!(parse_cpu_stat(b"usage_usec 9\nuser_usec 8\nsystem_usec 1\n"), None);
    }

    #[test]
    fn memory() {
        assert_eq!(parse_memory_limit(b"67108864\n"), Some(64 << 20));
        for none in [&b"max\n"[..], b"9223372036854771712\n", b"9223372036854710272\n", b"-1\n"] {
            assert_eq!(parse_memory_limit(none), None);
        }
        let events = b"low 0\nhigh 7\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n";
        assert_eq!((keyed(events, "high"), keyed(events, "max")), (Some(7), Some(12)));
        assert_eq!((keyed(events, "oom_kil"), keyed(events, "hig")), (None, None));
    }

    #[test]
    fn pressure() {
        let text = b"some avg10=0.22 avg60=0.00 avg300=0.00 total=1234\n\
                     full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let expected = Stalled { some_ns: 1_234_000, full_ns: 5_000 };
        assert_eq!(parse_pressure(text), Some(expected));
        assert_eq!(parse_pressure(b"some avg10=0.00 total=x\n"), None);
    }

    #[test]
    fn files() {
        let directory = tempfile::tempdir().expect("a place for files");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).expect("written");
        };
        write("cpu.cfs_quota_us", "-1\n");
        write("cpu.cfs_period_us", "100000\n");
        assert_eq!(quota(directory.path(), Version::V1), None);
        write("cpu.cfs_quota_us", "25000\n");
        let expected = Some(Quota { quota_ns: 25_000_000, period_ns: 100_000_000 });
        assert_eq!(quota(directory.path(), Version::V1), expected);
        assert_eq!(quota(directory.path(), Version::V2), None);
        write("cpu.max", "25000 100000\n");
        assert_eq!(quota(directory.path(), Version::V2), expected);
        assert_eq!(read(directory.path(), "none", parse_number), None);
    }

    proptest! {
        #[test]
        fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_cpu_max(&text), parse_cpu_stat(&text), parse_pressure(&text));
            let _ = (parse_memory_limit(&text), keyed(&text, "max"));
        }

        #[test]
        fn what_the_kernel_writes_is_read(periods: u32, throttled: u32, time: u32) {
            let text =
                format!("nr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec {time}\n");
            let expected = Throttled {
                periods: periods.into(),
                throttled_periods: throttled.into(),
                throttled_ns: u64::from(time) * 1000,
            };
            prop_assert_eq!(parse_cpu_stat(text.as_bytes()), Some(expected));
        }
    }
}
