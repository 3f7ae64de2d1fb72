//! Names of what the tests make, and removal of what an earlier run could not remove.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::{block, cgroup, docker, facts, oci, podman};

/// Every name begins with it.
pub const PREFIX: &str = "ctrace-test-";

/// A name that nothing else on this host has.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}-{what}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that is removed on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(what: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(unique(what));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(TempDir(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("leaving {}: {error}", self.0.display());
        }
    }
}

/// Whether a name belongs to a test run that has ended: only that is swept, because other runs,
/// and other people's containers with the prefix, may be alive.
pub fn is_leftover(name: &str) -> bool {
    let Some((pid, rest)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let numbers = rest.split_once('-').map(|(number, _)| number.parse::<u32>().is_ok());
    match pid.parse::<u32>() {
        // A zombie has no executable any more.
        Ok(pid) if numbers == Some(true) => fs::read_link(format!("/proc/{pid}/exe")).is_err(),
        _ => false,
    }
}

/// The leftovers among the entries of a directory that may be absent.
pub fn leftovers_in(directory: &Path) -> Vec<OsString> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    names.filter(|name| is_leftover(&name.to_string_lossy())).collect()
}

/// Removes what ended runs left: containers first, then cgroups, then directories.
pub fn sweep_once() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.set(()).is_err() {
        return Ok(());
    }
    oci::sweep()?;
    podman::sweep()?;
    block::sweep()?;
    for mount in facts::cgroup_mounts()? {
        cgroup::sweep(&mount)?;
    }
    let temporary = std::env::temp_dir();
    for name in leftovers_in(&temporary) {
        let directory = temporary.join(&name);
        docker::wait_stopped(&directory)?;
        unmount_below(&directory)?;
        if !directory.exists() {
            // The daemon's supervisor was faster.
            continue;
        }
        fs::remove_dir_all(&directory)
            .with_context(|| format!("sweeping {}", directory.display()))?;
    }
    Ok(())
}

/// A docker daemon that was killed leaves what it had mounted.
fn unmount_below(directory: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let below: Vec<_> = below.filter(|at| Path::new(at).starts_with(directory)).collect();
    // The inner ones were mounted last.
    for at in below.into_iter().rev() {
        let path = CString::new(at)?;
        // SAFETY: the path ends in 0 and lives for the call.
        if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("unmounting {at}"));
        }
    }
    Ok(())
}
