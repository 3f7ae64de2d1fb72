//! Processes that hold memory of every kind and eat more when told to.
//!
//! A victim is a fork of the test: it makes system calls only, so that its memory and its name are
//! known to the byte.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::facts::patience;
use crate::process::{Signal, pidfd, readable, signal};

/// Eat until something kills it.
pub const ENDLESS: u64 = u64::MAX;

const MIB: usize = 1 << 20;
/// The child's descriptors, clear of those that the test has open.
const READY: RawFd = 900;
const GO: RawFd = 901;

/// What a victim is made of.
#[derive(Debug)]
pub struct Plan {
    name: [u8; 16],
    anon: usize,
    shmem: usize,
    file: Option<File>,
    uid: Option<u32>,
    oom_score_adj: Option<i32>,
    numa_node: Option<u32>,
}

impl Plan {
    /// The name may have any bytes; the kernel keeps 15.
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(name.as_ref().iter().take(15)) {
            *to = *from;
        }
        Plan {
            name: comm,
            anon: 0,
            shmem: 0,
            file: None,
            uid: None,
            oom_score_adj: None,
            numa_node: None,
        }
    }

    /// Holds so much anonymous memory from the start.
    pub fn anon(self, bytes: usize) -> Self {
        Plan { anon: bytes, ..self }
    }

    /// Holds so much shared memory from the start.
    pub fn shmem(self, bytes: usize) -> Self {
        Plan { shmem: bytes, ..self }
    }

    /// Holds a file's pages, locked, from the start.
    pub fn file(self, path: &str) -> Result<Self> {
        Ok(Plan { file: Some(File::open(path).with_context(|| path.to_owned())?), ..self })
    }

    pub fn uid(self, uid: u32) -> Self {
        Plan { uid: Some(uid), ..self }
    }

    pub fn oom_score_adj(self, adj: i32) -> Self {
        Plan { oom_score_adj: Some(adj), ..self }
    }

    /// Allocates on this NUMA node only (`MPOL_BIND`).
    pub fn numa_node(self, node: u32) -> Self {
        Plan { numa_node: Some(node), ..self }
    }

    /// Starts it and waits until it holds what it is to hold.
    pub fn spawn(self, cgroup: Option<&Cgroup>) -> Result<Victim> {
        let procs = cgroup.map(Cgroup::procs).transpose()?;
        let (ready_reader, ready_writer) = io::pipe()?;
        let (go_reader, go_writer) = io::pipe()?;
        let file = match &self.file {
            Some(file) => Some((file.as_raw_fd(), usize::try_from(file.metadata()?.len())?)),
            None => None,
        };
        let child = Child {
            procs: procs.as_ref().map(AsRawFd::as_raw_fd),
            ready: ready_writer.as_raw_fd(),
            go: go_reader.as_raw_fd(),
            file,
            plan: &self,
        };
        // SAFETY: between fork and _exit the child makes system calls only and touches no lock or
        // allocator of the other threads.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()).context("fork"),
            0 => child.live(),
            pid => u32::try_from(pid)?,
        };
        // The writer's end has to close with the child, so that its death is seen.
        drop(ready_writer);
        let mut victim = Victim { pid, ready: ready_reader, go: go_writer, reaped: false };
        victim.report().with_context(|| format!("victim {pid} holding its memory"))?;
        if let Some(adj) = self.oom_score_adj {
            fs::write(format!("/proc/{pid}/oom_score_adj"), adj.to_string())?;
        }
        Ok(victim)
    }
}

/// How a victim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Signaled(i32),
}

/// A living victim; killed and reaped on drop.
#[derive(Debug)]
pub struct Victim {
    pid: u32,
    ready: PipeReader,
    go: PipeWriter,
    reaped: bool,
}

impl Victim {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it to take so much more memory; returns at once.
    pub fn eat(&mut self, bytes: u64) -> Result<()> {
        Ok(self.go.write_all(&bytes.to_ne_bytes())?)
    }

    /// Waits until it has eaten what it was told to.
    pub fn full(&mut self) -> Result<()> {
        self.report().with_context(|| format!("victim {} eating", self.pid))
    }

    /// Eats until it is killed.
    pub fn eat_until_killed(mut self) -> Result<()> {
        self.eat(ENDLESS)?;
        self.killed()
    }

    /// Waits until it was killed by SIGKILL, whoever sent it.
    pub fn killed(mut self) -> Result<()> {
        match self.wait()? {
            End::Signaled(libc::SIGKILL) => Ok(()),
            other => bail!("victim {} was not killed but {other:?}", self.pid),
        }
    }

    fn report(&mut self) -> Result<()> {
        ensure!(readable(&self.ready, patience(30))?, "no word from it");
        let mut byte = [0];
        ensure!(self.ready.read(&mut byte)? == 1, "it ended");
        ensure!(byte == [b'y'], "step {} failed", char::from(byte[0]));
        Ok(())
    }

    fn wait(&mut self) -> Result<End> {
        ensure!(readable(pidfd(self.pid)?, patience(30))?, "victim {} does not end", self.pid);
        let mut status = 0;
        // SAFETY: `status` is a valid int; the pid is our child's and not yet reaped.
        if unsafe { libc::waitpid(self.pid.cast_signed(), &raw mut status, 0) } < 0 {
            return Err(io::Error::last_os_error()).context("waitpid");
        }
        self.reaped = true;
        Ok(if libc::WIFSIGNALED(status) {
            End::Signaled(libc::WTERMSIG(status))
        } else {
            End::Exited(libc::WEXITSTATUS(status))
        })
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        if !self.reaped {
            // Until it is waited for its pid stays its own; a failure leaves a zombie at worst.
            let _ = signal(self.pid, Signal::Kill);
            let _ = self.wait();
        }
    }
}

/// The forked side.
struct Child<'a> {
    procs: Option<RawFd>,
    ready: RawFd,
    go: RawFd,
    file: Option<(RawFd, usize)>,
    plan: &'a Plan,
}

impl Child<'_> {
    fn live(&self) -> ! {
        match self.prepare() {
            Ok(()) => tell(READY, b'y'),
            Err(step) => {
                tell(self.ready, step);
                exit(1);
            }
        }
        loop {
            let mut bytes = [0; 8];
            // SAFETY: the buffer is ours and as long as said.
            if unsafe { libc::read(GO, bytes.as_mut_ptr().cast(), 8) } != 8 {
                exit(0);
            }
            let mut left = u64::from_ne_bytes(bytes);
            while left > 0 {
                // A failed allocation is no reason to stop: only the OOM killer ends it.
                let _ = hold(MIB, libc::MAP_PRIVATE);
                left = left.saturating_sub(MIB as u64);
            }
            tell(READY, b'y');
        }
    }

    /// The error is a letter for the step that failed.
    fn prepare(&self) -> Result<(), u8> {
        let plan = self.plan;
        let step = |ok: bool, letter: u8| if ok { Ok(()) } else { Err(letter) };
        if let Some(procs) = self.procs {
            // SAFETY: writes one byte of a constant; "0" is the caller itself.
            step(unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } == 1, b'c')?;
        }
        // SAFETY: the name is 16 bytes and ends in 0.
        step(unsafe { libc::prctl(libc::PR_SET_NAME, plan.name.as_ptr()) } == 0, b'n')?;
        if let Some(node) = plan.numa_node {
            let mask = 1u64 << node;
            // SAFETY: the mask is one word, and 64 says how many of its bits count.
            let bound = unsafe {
                libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, &raw const mask, 64)
            };
            step(bound == 0, b'm')?;
        }
        step(hold(plan.anon, libc::MAP_PRIVATE), b'a')?;
        step(hold(plan.shmem, libc::MAP_SHARED), b's')?;
        if let Some((fd, length)) = self.file {
            step(hold_file(fd, length), b'f')?;
        }
        if let Some(uid) = plan.uid {
            // SAFETY: plain integers; the raw call changes this thread, the only one after fork.
            step(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) } == 0, b'u')?;
        }
        // A change of user would clear it, so it comes last.
        // SAFETY: plain integers.
        step(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0, b'p')?;
        // Nothing of the test's may be held open by a victim: a pipe's end would never be seen.
        // SAFETY: plain integers; the descriptors closed are this process's copies.
        let moved = unsafe {
            libc::dup2(self.ready, READY) == READY
                && libc::dup2(self.go, GO) == GO
                && libc::syscall(libc::SYS_close_range, 3, READY - 1, 0) == 0
                && libc::syscall(libc::SYS_close_range, GO + 1, u32::MAX, 0) == 0
        };
        step(moved, b'd')
    }
}

/// Maps and writes anonymous memory. Also true for nothing.
fn hold(bytes: usize, sharing: i32) -> bool {
    if bytes == 0 {
        return true;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), bytes, protection, sharing | libc::MAP_ANONYMOUS, -1, 0)
    };
    if at == libc::MAP_FAILED {
        return false;
    }
    for offset in (0..bytes).step_by(4096) {
        // SAFETY: within the mapping that was just made.
        unsafe { at.cast::<u8>().add(offset).write_volatile(1) };
    }
    true
}

fn hold_file(fd: RawFd, length: usize) -> bool {
    // SAFETY: a new mapping at an address of the kernel's choice; locking reads every page in.
    unsafe {
        let at = libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        at != libc::MAP_FAILED && libc::mlock(at, length) == 0
    }
}

fn tell(fd: RawFd, byte: u8) {
    // SAFETY: one byte of this frame. Nobody left to tell is no failure: the test has ended.
    let _ = unsafe { libc::write(fd, (&raw const byte).cast(), 1) };
}

fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running the test's exit handlers.
    unsafe { libc::_exit(code) }
}
