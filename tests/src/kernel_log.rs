//! The kernel's own report of an OOM kill, from /dev/kmsg: the ground truth of the victim's
//! figures. Shares no code with ctrace.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::readable;

/// A `… Killed process …` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    pub pid: u32,
    pub comm: String,
    pub total_vm_kib: u64,
    pub anon_rss_kib: u64,
    pub file_rss_kib: u64,
    pub shmem_rss_kib: u64,
    pub uid: u32,
    pub pgtables_kib: u64,
    pub oom_score_adj: i64,
}

/// An `oom-kill:constraint=…` line. The kernel prints few of them in a burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// As in `CONSTRAINT_MEMCG`.
    pub constraint: String,
    /// The limit that was hit; absent in a global OOM.
    pub oom_memcg: Option<String>,
    pub task_memcg: Option<String>,
    pub pid: u32,
    /// The allocation that failed: its flags and its order. The line before it in the log.
    pub allocation: Option<(u64, i64)>,
}

/// The kernel log from a mark on.
#[derive(Debug)]
pub struct KernelLog {
    kmsg: File,
    allocation: Option<(u64, i64)>,
    kills: Vec<Killed>,
    constraints: Vec<Constraint>,
}

impl KernelLog {
    /// Begins to read here; what was logged before is passed over.
    pub fn mark() -> Result<Self> {
        let mut kmsg = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        kmsg.seek(SeekFrom::End(0))?;
        Ok(KernelLog { kmsg, allocation: None, kills: Vec::new(), constraints: Vec::new() })
    }

    /// Waits until the log says that this process was killed.
    pub fn killed(&mut self, pid: u32, limit: Duration) -> Result<Killed> {
        let deadline = Instant::now() + limit;
        loop {
            self.read_all()?;
            if let Some(killed) = self.kills.iter().rfind(|killed| killed.pid == pid) {
                return Ok(killed.clone());
            }
            if !readable(&self.kmsg, deadline.saturating_duration_since(Instant::now()))? {
                bail!("the kernel log has no OOM kill of {pid}; it has {:?}", self.kills);
            }
        }
    }

    /// The kills logged since the mark.
    pub fn kills(&mut self) -> Result<&[Killed]> {
        self.read_all()?;
        Ok(&self.kills)
    }

    /// The constraint line of this victim, where the kernel printed one. It comes before the
    /// `Killed process` line: call it after [`KernelLog::killed`].
    pub fn constraint(&self, pid: u32) -> Option<&Constraint> {
        self.constraints.iter().rfind(|constraint| constraint.pid == pid)
    }

    fn read_all(&mut self) -> Result<()> {
        let mut record = [0; 8192];
        loop {
            match self.kmsg.read(&mut record) {
                Ok(length) => self.take(&String::from_utf8_lossy(&record[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    bail!("the kernel log was overwritten before it was read")
                }
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
    }

    /// Takes one record: `<priority>,<sequence>,<microseconds>,<flags>;<message>\n ...`.
    fn take(&mut self, record: &str) {
        let Some((_, message)) = record.split_once(';') else { return };
        let message = message.split('\n').next().unwrap_or_default();
        if let Some(killed) = parse_killed(message) {
            self.kills.push(killed);
        } else if let Some(constraint) = parse_constraint(message) {
            self.constraints.push(Constraint { allocation: self.allocation.take(), ..constraint });
        } else if let Some(allocation) = parse_allocation(message) {
            self.allocation = Some(allocation);
        }
    }
}

/// Parses `<why>: Killed process PID (comm) total-vm:…kB, …, UID:… pgtables:…kB oom_score_adj:…`.
pub fn parse_killed(message: &str) -> Option<Killed> {
    let (_, rest) = message.split_once("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    // The name may have parentheses of its own.
    let (comm, figures) = rest.rsplit_once(") total-vm:")?;
    let figures = format!("total-vm:{figures}");
    let figure = |name: &str| -> Option<&str> {
        let field = figures.split([' ', ',']).find_map(|word| word.strip_prefix(name))?;
        Some(field.trim_end_matches("kB"))
    };
    Some(Killed {
        pid: pid.parse().ok()?,
        comm: comm.to_owned(),
        total_vm_kib: figure("total-vm:")?.parse().ok()?,
        anon_rss_kib: figure("anon-rss:")?.parse().ok()?,
        file_rss_kib: figure("file-rss:")?.parse().ok()?,
        shmem_rss_kib: figure("shmem-rss:")?.parse().ok()?,
        uid: figure("UID:")?.parse().ok()?,
        pgtables_kib: figure("pgtables:")?.parse().ok()?,
        oom_score_adj: figure("oom_score_adj:")?.parse().ok()?,
    })
}

/// Parses `oom-kill:constraint=…,nodemask=…,cpuset=…,mems_allowed=…,oom_memcg=…,task_memcg=…,…`.
pub fn parse_constraint(message: &str) -> Option<Constraint> {
    let (_, rest) = message.split_once("oom-kill:constraint=")?;
    // The task's name comes after every cgroup and may hold anything; pid and uid end the line.
    let (head, task) = rest.rsplit_once(",task=")?;
    let (_, pid) = task.rsplit_once(",pid=")?;
    let field = |name: &str| head.split(',').find_map(|word| word.strip_prefix(name));
    Some(Constraint {
        constraint: head.split(',').next()?.to_owned(),
        oom_memcg: field("oom_memcg=").map(str::to_owned),
        task_memcg: field("task_memcg=").map(str::to_owned),
        pid: pid.split(',').next()?.parse().ok()?,
        allocation: None,
    })
}

/// Parses `COMM invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, …`.
pub fn parse_allocation(message: &str) -> Option<(u64, i64)> {
    let (_, rest) = message.rsplit_once(" invoked oom-killer: gfp_mask=0x")?;
    let (mask, rest) = rest.split_once('(')?;
    let (_, order) = rest.split_once("order=")?;
    Some((u64::from_str_radix(mask, 16).ok()?, order.split(',').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn killed_line_of_6_18() {
        let line = "Memory cgroup out of memory: Killed process 1991 (tail) total-vm:67224kB, \
                    anon-rss:64480kB, file-rss:120kB, shmem-rss:4kB, UID:1000 pgtables:176kB \
                    oom_score_adj:-5";
        let expected = Killed {
            pid: 1991,
            comm: "tail".to_owned(),
            total_vm_kib: 67224,
            anon_rss_kib: 64480,
            file_rss_kib: 120,
            shmem_rss_kib: 4,
            uid: 1000,
            pgtables_kib: 176,
            oom_score_adj: -5,
        };
        assert_eq!(parse_killed(line), Some(expected));
    }

    #[test]
    fn killed_line_with_a_name_full_of_separators() {
        let line = "Out of memory: Killed process 7 (a) (b, UID:3) total-vm:4kB, anon-rss:3kB, \
                    file-rss:2kB, shmem-rss:1kB, UID:0 pgtables:8kB oom_score_adj:1000";
        let killed = parse_killed(line).expect("parses");
        assert_eq!((killed.comm.as_str(), killed.uid), ("a) (b, UID:3", 0));
    }

    #[test]
    fn constraint_line() {
        let line = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1ef,\
                    mems_allowed=0,oom_memcg=/docker/c1ef,task_memcg=/docker/c1ef/x,task=a,pid=2,\
                    pid=1991,uid=0";
        let constraint = parse_constraint(line).expect("parses");
        assert_eq!(constraint.constraint, "CONSTRAINT_MEMCG");
        assert_eq!(constraint.oom_memcg.as_deref(), Some("/docker/c1ef"));
        assert_eq!(constraint.task_memcg.as_deref(), Some("/docker/c1ef/x"));
        assert_eq!(constraint.pid, 1991);
    }

    #[test]
    fn global_constraint_has_no_oom_memcg() {
        let line = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,\
                    global_oom,task_memcg=/x,task=ct-eater,pid=12,uid=0";
        let constraint = parse_constraint(line).expect("parses");
        assert_eq!(constraint.oom_memcg, None);
        assert_eq!(constraint.pid, 12);
    }

    #[test]
    fn line_of_the_allocation() {
        let line = "tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0";
        assert_eq!(parse_killed(line), None);
        assert_eq!(parse_constraint(line), None);
        assert_eq!(parse_allocation(line), Some((0xcc0, 0)));
    }
}
