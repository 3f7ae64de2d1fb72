//! Processes by id: signals and what /proc says of them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::facts::{CgroupVersion, memory_controller};

/// The signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Term,
    Int,
    Kill,
    Stop,
    Cont,
}

/// Sends a signal to one process that this test started.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let number = match signal {
        Signal::Term => libc::SIGTERM,
        Signal::Int => libc::SIGINT,
        Signal::Kill => libc::SIGKILL,
        Signal::Stop => libc::SIGSTOP,
        Signal::Cont => libc::SIGCONT,
    };
    let pid = libc::pid_t::try_from(pid).context("pid too large")?;
    // A pid of 0 or below would address a group of processes.
    if pid <= 1 {
        bail!("refusing to signal pid {pid}");
    }
    // SAFETY: kill takes plain integers and touches no memory of ours.
    if unsafe { libc::kill(pid, number) } != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("sending {signal:?} to {pid}"));
    }
    Ok(())
}

/// A process that is stopped; goes on when dropped.
#[derive(Debug)]
pub struct Stopped {
    pid: u32,
    is_stopped: bool,
}

impl Stopped {
    /// Stops one by SIGSTOP.
    pub fn new(pid: u32) -> Result<Self> {
        signal(pid, Signal::Stop)?;
        Ok(Stopped { pid, is_stopped: true })
    }

    pub fn go_on(mut self) -> Result<()> {
        self.is_stopped = false;
        signal(self.pid, Signal::Cont)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.is_stopped
            && let Err(error) = signal(self.pid, Signal::Cont)
        {
            eprintln!("leaving {} stopped: {error:#}", self.pid);
        }
    }
}

/// A live process's path in the memory controller's hierarchy.
pub fn memory_cgroup(pid: u32) -> Result<String> {
    cgroup(pid, if memory_controller()?.version == CgroupVersion::V1 { "memory" } else { "" })
}

/// A live process's path in the hierarchy of a v1 controller; none: of v2.
pub fn cgroup(pid: u32, controller: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    text.lines()
        .find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
        .with_context(|| format!("no cgroup of {controller:?} in /proc/{pid}/cgroup: {text}"))
}

/// A live process's parent, as the host numbers it.
pub fn parent(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(field.context("no PPid in /proc/PID/status")?.trim().parse()?)
}

/// The directory of a path in the memory controller's hierarchy.
pub fn memory_cgroup_directory(path: &str) -> Result<PathBuf> {
    Ok(memory_controller()?.mount.join(path.trim_start_matches('/')))
}

/// Inode of a live process's namespace: `pid`, `mnt` or `net`.
pub fn namespace(pid: u32, kind: &str) -> Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/{kind}"))?.ino())
}

/// Waits until a descriptor can be read. False: not within the limit.
pub fn readable(descriptor: impl AsFd, limit: Duration) -> Result<bool> {
    let fd = descriptor.as_fd().as_raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one valid pollfd for the length of the call.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => Err(io::Error::last_os_error()).context("poll"),
    }
}

/// A handle that becomes readable when this process ends.
pub fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and gives a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).context("descriptor out of range")?;
    if fd < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("pidfd_open of {pid}"));
    }
    // SAFETY: the kernel has just given this descriptor to us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
