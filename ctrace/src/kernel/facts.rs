//! Everything about this kernel that a plan is made from.

use std::fs;

use anyhow::{Context, Result, bail};

use super::{AuditLog, Btf, Capabilities, CgroupLayout, Features, Lockdown, features::Trial, host};

/// Facts about the running kernel. Drop them once programs are loaded, not before: they hold the
/// BTF, which is large, and the hooks of the trial.
pub struct Facts {
    /// The kernel's types.
    pub btf: Btf,
    /// Its cgroup hierarchies.
    pub cgroups: CgroupLayout,
    /// What loads and attaches.
    pub features: Features,
    /// Its release, such as `6.18.44`.
    pub release: String,
    /// Its lockdown mode; `None` where it is not shown.
    pub lockdown: Option<Lockdown>,
    /// Bytes of a page.
    pub page_size: u64,
    /// The NUMA nodes that have memory, one bit each; nodes from 64 on are left out.
    pub nodes_with_memory: u64,
    /// Inode of the host's mount namespace.
    pub host_mnt_ns: u32,
    /// Whether the audit log can be listened to, or why not.
    pub audit: Result<(), String>,
    /// The scheduler keeps how long each task waited for a CPU (`CONFIG_SCHED_INFO`, and not switched
    /// off).
    pub keeps_sched_info: bool,
    /// Keeps attaching fast until programs are loaded.
    _trial: Trial,
}

impl Facts {
    /// Asks the kernel for all of it. Takes some 20 ms.
    ///
    /// # Errors
    /// Where the kernel publishes no BTF, or `/proc` is not mounted.
    pub fn gather() -> Result<Self> {
        raise_memlock();
        raise_files();
        let btf = Btf::of_kernel().context("ctrace needs the kernel's BTF")?;
        let (features, trial) = Features::probe(Some(&btf));
        // SAFETY: sysconf has no preconditions.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let nodes = fs::read_to_string("/sys/devices/system/node/has_memory");
        Ok(Self {
            btf,
            cgroups: CgroupLayout::of_host().context("cannot read the cgroup layout")?,
            features,
            release: host::kernel_release().context("cannot read the kernel's release")?,
            lockdown: Lockdown::of_kernel(),
            page_size: page_size.try_into().context("the page size is unknown")?,
            // A kernel without NUMA has node 0 only.
            nodes_with_memory: nodes.ok().and_then(|list| parse_nodes(&list)).unwrap_or(1),
            host_mnt_ns: host::mnt_ns().context("cannot read the host's mount namespace")?,
            audit: AuditLog::open().map(drop).map_err(|error| error.to_string()),
            keeps_sched_info: fs::read_to_string("/proc/thread-self/schedstat")
                .is_ok_and(|text| keeps_sched_info(&text)),
            _trial: trial,
        })
    }
}

/// Lifts the limit on locked memory: before Linux 5.11 BPF programs and maps count towards it. Where
/// it may not be lifted, newer kernels do not mind.
fn raise_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call reads the struct and touches this process's limit only.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

/// Lifts the number of open files to what is allowed: files of many cgroups are kept open. Where it
/// stays low they are opened each time.
fn raise_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls write and read the struct and touch this process's limit only.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Checks that this process may trace.
///
/// # Errors
/// Names the capabilities that are missing.
pub fn require_privileges() -> Result<()> {
    let missing = Capabilities::of_self().context("cannot read own capabilities")?.missing();
    if !missing.is_empty() {
        bail!("missing {}: run ctrace as root or grant them", missing.join(" and "));
    }
    Ok(())
}

/// Whether the third number of a `/proc/PID/schedstat`, how often the task got a CPU, is more than 0.
fn keeps_sched_info(schedstat: &str) -> bool {
    let times = schedstat.split_whitespace().nth(2).and_then(|times| times.parse::<u64>().ok());
    times.is_some_and(|times| times > 0)
}

/// Reads a list such as `0-1,3` into a mask of the first 64 numbers.
fn parse_nodes(list: &str) -> Option<u64> {
    let mut mask = 0;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        (first..=last.min(63)).for_each(|node| mask |= 1 << node);
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        assert_eq!(parse_nodes("0\n"), Some(1));
        assert_eq!(parse_nodes("0-1,3,62-70"), Some(0b1011 | 0b11 << 62));
        assert_eq!(parse_nodes("64,4294967295"), Some(0));
        assert_eq!(parse_nodes(""), None);
        assert_eq!(parse_nodes("x-3"), None);
    }

    #[test]
    fn schedstats() {
        assert!(keeps_sched_info("109508 325280 2\n"));
        assert!(
            !keeps_sched_info("0 0 0\n") && !keeps_sched_info("") && !keeps_sched_info("1 2 x")
        );
    }

    #[test]
    fn this_host() {
        let start = std::time::Instant::now();
        match Facts::gather() {
            Ok(facts) => {
                println!("{} in {:?}", facts.release, start.elapsed());
                assert!(facts.page_size >= 4096 && facts.nodes_with_memory != 0);
            }
            Err(error) => println!("skipped: {error:#}"),
        }
    }
}
