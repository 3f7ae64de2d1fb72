//! Holds an `oom_kill` event against what the kernel says about the same kill.

use std::fmt::{Debug, Display};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::cgroup::{Counters, counters};
use crate::event::Event;
use crate::facts::patience;
use crate::kernel_log::{KernelLog, Killed};
use crate::process::{memory_cgroup, memory_cgroup_directory, namespace};
use crate::watch::Watch;

/// Who a process is, read while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pid: u32,
    pub ppid: u32,
    /// Its pid in its own pid namespace.
    pub container_pid: u32,
    /// Path in the memory controller's hierarchy.
    pub cgroup: String,
    pub cgroup_id: u64,
    /// Inodes of the namespaces pid, mnt, net.
    pub namespaces: [u64; 3],
}

const NAMESPACES: [&str; 3] = ["pid", "mnt", "net"];

impl Identity {
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let last = line.and_then(|line| line.split_whitespace().last());
            Ok(last.with_context(|| format!("no {name} in /proc/{pid}/status"))?.parse()?)
        };
        let cgroup = memory_cgroup(pid)?;
        let cgroup_id = fs::metadata(memory_cgroup_directory(&cgroup)?)?.ino();
        let mut namespaces = [0; 3];
        for (inode, kind) in namespaces.iter_mut().zip(NAMESPACES) {
            *inode = namespace(pid, kind)?;
        }
        let (ppid, container_pid) = (field("PPid:")?, field("NSpid:")?);
        Ok(Identity { pid, ppid, container_pid, cgroup, cgroup_id, namespaces })
    }

    /// Where its memory cgroup's files are.
    pub fn directory(&self) -> Result<PathBuf> {
        memory_cgroup_directory(&self.cgroup)
    }

    /// Holds an event's subject against it.
    pub fn check(&self, event: &Event) -> Result<()> {
        let Identity { pid, ppid, container_pid, cgroup, cgroup_id, namespaces } = self;
        equal("process.pid", event.u64("/process/pid")?, u64::from(*pid))?;
        equal("process.tid", event.u64("/process/tid")?, u64::from(*pid))?;
        equal("process.ppid", event.u64("/process/ppid")?, u64::from(*ppid))?;
        let seen = event.u64("/process/container_pid")?;
        equal("process.container_pid", seen, u64::from(*container_pid))?;
        equal("cgroup.path", event.str("/cgroup/path")?, cgroup.as_str())?;
        equal("cgroup.id", event.u64("/cgroup/id")?, *cgroup_id)?;
        for (inode, kind) in namespaces.iter().zip(NAMESPACES) {
            let seen = event.u64(&format!("/namespaces/{kind}"))?;
            equal(format!("namespaces.{kind}"), seen, *inode)?;
        }
        Ok(())
    }
}

/// The limit that was hit.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    pub bytes: u64,
    /// The cgroup that has it.
    pub path: &'a str,
}

/// What ctrace and the kernel log say about the kill of `pid`.
pub fn both(watch: &Watch, log: &mut KernelLog, pid: u32) -> Result<(Event, Killed)> {
    let killed = log.killed(pid, patience(20))?;
    let event = watch.oom_kill(pid)?;
    Ok((event, killed))
}

/// Holds the victim's figures against the kernel log's line.
pub fn check_victim(event: &Event, killed: &Killed) -> Result<()> {
    let Killed {
        pid,
        comm,
        total_vm_kib,
        anon_rss_kib,
        file_rss_kib,
        shmem_rss_kib,
        uid,
        pgtables_kib,
        oom_score_adj,
    } = killed;
    equal("process.pid (kernel log)", event.u64("/process/pid")?, u64::from(*pid))?;
    equal("process.comm (kernel log)", event.str("/process/comm")?, comm.as_str())?;
    equal("process.uid", event.u64("/process/uid")?, u64::from(*uid))?;
    for (field, kib) in [
        ("total_vm_bytes", total_vm_kib),
        ("anon_rss_bytes", anon_rss_kib),
        ("file_rss_bytes", file_rss_kib),
        ("shmem_rss_bytes", shmem_rss_kib),
        ("pgtables_bytes", pgtables_kib),
    ] {
        equal(format!("oom.{field}"), event.u64(&format!("/oom/{field}"))?, kib * 1024)?;
    }
    equal("oom.oom_score_adj", event.i64("/oom/oom_score_adj")?, *oom_score_adj)?;
    ensure!(!event.str("/oom/via")?.is_empty(), "oom.via is empty");
    Ok(())
}

/// Holds constraint, limit, usage and the limit's cgroup against what the test set up, and them and
/// the allocation against the kernel log where that has a line about them.
pub fn check_limit(event: &Event, log: &KernelLog, limit: Limit<'_>) -> Result<()> {
    let Limit { bytes, path } = limit;
    equal("oom.constraint", event.str("/oom/constraint")?, "memcg")?;
    equal("oom.limit_bytes", event.u64("/oom/limit_bytes")?, bytes)?;
    equal("oom.oom_cgroup", event.str("/oom/oom_cgroup")?, path)?;
    let usage = event.u64("/oom/usage_bytes")?;
    // The last charge failed on at most a huge page; charges that may not fail go beyond.
    let least = bytes.saturating_sub(2 << 20);
    println!("  oom.usage_bytes: {usage}, the limit is {bytes}");
    ensure!((least..=bytes + (1 << 20)).contains(&usage), "oom.usage_bytes {usage} of {bytes}");
    let pid = u32::try_from(event.u64("/process/pid")?)?;
    match log.constraint(pid) {
        Some(line) => {
            equal("constraint (kernel log)", line.constraint.as_str(), "CONSTRAINT_MEMCG")?;
            let logged = line.oom_memcg.as_deref().context("the log names no oom_memcg")?;
            equal("oom.oom_cgroup (kernel log)", event.str("/oom/oom_cgroup")?, logged)?;
            let seen = (event.u64("/oom/gfp_mask")?, event.i64("/oom/order")?);
            let logged = line.allocation.context("the log has no line of the allocation")?;
            equal("oom.gfp_mask, oom.order (kernel log)", seen, logged)?;
        }
        None => println!("  (the kernel log's constraint line was rate-limited away)"),
    }
    Ok(())
}

/// Holds the counters in the event against the cgroup's files, read after the kill.
pub fn check_counters(event: &Event, now: Counters) -> Result<()> {
    let Counters { oom_kill, oom, hits } = now;
    equal("oom.memory_events.oom_kill", event.u64("/oom/memory_events/oom_kill")?, oom_kill)?;
    // The trigger may hit the limit again before the victim has gone, and calls the OOM killer
    // again then.
    if let Some(oom) = oom {
        let seen = event.u64("/oom/memory_events/oom")?;
        println!("  oom.memory_events.oom: {seen}, the file now has {oom}");
        ensure!(0 < seen && seen <= oom, "oom.memory_events.oom {seen}, the file has {oom}");
    }
    let field = if oom.is_some() { "max" } else { "failcnt" };
    let seen = event.u64(&format!("/oom/memory_events/{field}"))?;
    println!("  oom.memory_events.{field}: {seen}, the file now has {hits}");
    ensure!(seen <= hits, "oom.memory_events.{field} {seen}, the file has {hits}");
    // v1 counts a limit on memory and swap elsewhere.
    ensure!((seen > 0) == (hits > 0), "oom.memory_events.{field} {seen}, the file has {hits}");
    Ok(())
}

/// Holds the levels against `(path, limit)` from the victim's cgroup outwards. Levels without a
/// limit have none.
pub fn check_levels(event: &Event, expected: &[(&str, Option<u64>)]) -> Result<()> {
    let levels = event.array("/oom/levels")?;
    let seen: Vec<_> = levels
        .iter()
        .map(|level| (level["path"].as_str().unwrap_or("?"), level["limit_bytes"].as_u64()))
        .filter(|(path, _)| *path != "/")
        .collect();
    equal("oom.levels", seen.as_slice(), expected)
}

/// The counters of a victim's cgroup while it is still there.
pub fn counters_of(identity: &Identity) -> Result<Counters> {
    counters(&identity.directory()?)
}

/// Prints and compares.
pub fn equal<S, T>(what: impl Display, seen: S, truth: T) -> Result<()>
where
    S: Debug + PartialEq<T>,
    T: Debug,
{
    println!("  {what}: {seen:?} == {truth:?}");
    ensure!(seen == truth, "{what}: ctrace says {seen:?}, the truth is {truth:?}");
    Ok(())
}
