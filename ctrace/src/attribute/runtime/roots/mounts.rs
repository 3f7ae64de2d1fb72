//! Which file systems may never answer. The table of mounts says so without asking them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Types of file systems whose files are on another machine, or are mounted when one looks.
const REMOTE: [&str; 9] =
    ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs", "lustre", "gpfs", "autofs"];

/// Where file systems are mounted, the later over the earlier, and whether they are remote.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<(PathBuf, bool)>);

impl Mounts {
    /// Those of this process's mount namespace; none where they cannot be read.
    pub fn of_host() -> Self {
        Self::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default())
    }

    /// Parses a `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
    fn parse(mountinfo: &[u8]) -> Self {
        let of_line = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ');
            let point = unescaped(fields.nth(4)?);
            let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
            let is_remote = REMOTE.iter().any(|remote| remote.as_bytes() == kind)
                // Some process answers: sshfs, or a user's own.
                || kind.starts_with(b"fuse");
            Some((PathBuf::from(OsString::from_vec(point)), is_remote))
        };
        Self(mountinfo.split(|byte| *byte == b'\n').filter_map(of_line).collect())
    }

    /// Remote file systems at these.
    #[cfg(test)]
    pub fn remote(points: &[PathBuf]) -> Self {
        Self(points.iter().map(|point| (point.clone(), true)).collect())
    }

    /// Whether what is at `path`, without symbolic links, may never answer.
    pub fn is_remote(&self, path: &Path) -> bool {
        let around = self.0.iter().filter(|(point, _)| path.starts_with(point));
        let nearest = around.max_by_key(|(point, _)| point.components().count());
        nearest.is_some_and(|(_, is_remote)| *is_remote)
    }
}

/// `\040` for a space, and so on.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut left = field;
    while let [first, rest @ ..] = left {
        let digits = rest.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                left = &rest[3..];
            }
            None => {
                plain.push(*first);
                left = rest;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &[u8] = b"\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /home rw,relatime shared:2 - autofs systemd-1 rw,fd=42
23 22 0:21 /h/ann /home/ann rw master:3 propagate_from:2 - nfs4 server:/h/ann rw
24 22 8:2 / /home/bob rw - ext4 /dev/sdb rw
25 24 0:22 / /home/bob/my\\040disk rw - fuse.sshfs x:/ rw
26 21 0:23 / /srv rw - nfs server:/srv rw
27 26 8:3 / /srv rw - xfs /dev/sdc rw
28 21 0:24 / /gone
";

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = Mounts::parse(TABLE);
        for remote in ["/home", "/home/eve", "/home/ann/x", "/home/bob/my disk/x"] {
            assert!(mounts.is_remote(Path::new(remote)), "{remote}");
        }
        for local in ["/", "/homes", "/home/bob", "/home/bob/my", "/srv/x", "/gone"] {
            assert!(!mounts.is_remote(Path::new(local)), "{local}");
        }
        assert!(!Mounts::default().is_remote(Path::new("/home")));
        assert!(Mounts::of_host().0.iter().any(|(point, _)| point == Path::new("/proc")));
    }

    proptest! {
        #[test]
        fn no_content_panics(table in r"([0-9 /\\a-z\x00-\xff-]{0,40}\n?){0,3}") {
            // Either answer will do.
            let _ = Mounts::parse(table.as_bytes()).is_remote(Path::new("/home"));
        }
    }
}
