//! Reading files that someone else writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Largest file that is read. Docker's largest are some tens of KB; podman lists all its containers
/// in one file, at about 600 bytes each.
pub const MAX_BYTES: u64 = 4 << 20;
/// Largest file of a user's that is read.
pub const MAX_USERS_BYTES: u64 = 256 << 10;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    /// uid of the file's owner.
    pub owner: u32,
}

/// The content of the regular file at `path`, of at most `max` bytes; `None` where there is none.
///
/// Not blocked by a FIFO or a lease, not led elsewhere by a symbolic link, not fed without end.
pub fn read(path: &Path, max: u64) -> io::Result<Option<Content>> {
    open(path, libc::O_PATH | libc::O_NOFOLLOW, max)
}

/// As [`read`], of a file that may be a symbolic link.
pub fn read_linked(path: &Path, max: u64) -> io::Result<Option<Content>> {
    open(path, libc::O_PATH, max)
}

fn open(path: &Path, flags: i32, max: u64) -> io::Result<Option<Content>> {
    // First a look: to open a device may be to start it.
    let seen = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(seen) => seen,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = seen.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    // procfs and tracefs say 0 of all their files, of which some take what is read away
    // (`/proc/kmsg`) or never end (`trace_pipe`).
    if metadata.len() != 0 {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", seen.as_raw_fd()))?;
        bytes = read_at_most(&file, max)?;
    }
    Ok(Some(Content { bytes, owner: metadata.uid() }))
}

fn read_at_most(file: &File, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        let reason = format!("larger than {} KiB", max >> 10);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
