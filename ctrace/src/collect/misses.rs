//! Runs of programs that never were.

use std::{fs, os::fd::RawFd, path::PathBuf};

use crate::event::Lost;

/// Runs that the kernel left out, because an interrupt came while the same program ran on the same CPU.
/// Linux 5.12 and newer tell:
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/syscall.c#L2389-L2412>.
pub struct Misses(Vec<Program>);

struct Program {
    name: &'static str,
    fdinfo: PathBuf,
    seen: u64,
}

impl Misses {
    /// Of programs by their names. Their file descriptors must stay open.
    pub fn new(programs: impl IntoIterator<Item = (&'static str, RawFd)>) -> Self {
        let program = |(name, fd)| Program {
            name,
            fdinfo: PathBuf::from(format!("/proc/self/fdinfo/{fd}")),
            seen: 0,
        };
        Self(programs.into_iter().map(program).collect())
    }

    /// What was left out since the last call, by program.
    pub fn take(&mut self) -> Vec<Lost> {
        let take = |program: &mut Program| {
            let total = fs::read_to_string(&program.fdinfo).ok().and_then(|text| misses(&text))?;
            let count = total.saturating_sub(program.seen);
            program.seen = total;
            (count > 0).then_some(Lost { ring: "program", kind: program.name, count })
        };
        self.0.iter_mut().filter_map(take).collect()
    }
}

/// The count in what the kernel tells of a program's file descriptor.
fn misses(fdinfo: &str) -> Option<u64> {
    fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_new_is_told_once() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let fdinfo = directory.path().join("7");
        let mut misses = Misses(vec![Program { name: "runq_switch", fdinfo, seen: 0 }]);
        let told = |count| vec![Lost { ring: "program", kind: "runq_switch", count }];
        let mut now = |total: &str| {
            fs::write(&misses.0[0].fdinfo, format!("prog_id:\t9\nrecursion_misses:\t{total}\n"))?;
            std::io::Result::Ok(misses.take())
        };
        assert_eq!(now("0")?, []);
        assert_eq!(now("3")?, told(3));
        assert_eq!(now("3")?, []);
        assert_eq!(now("10")?, told(7));
        Ok(())
    }

    #[test]
    fn older_kernels_do_not_tell() {
        assert_eq!(misses("pos:\t0\nprog_id:\t9\n"), None);
        let mut gone = Misses::new([("runq_switch", -1)]);
        assert_eq!(gone.take(), []);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>(), count in any::<u64>()) {
            let _ = misses(&text);
            prop_assert_eq!(misses(&format!("\nrecursion_misses:\t{count}")), Some(count));
        }
    }
}
