//! What this host is: decides what a test can ask of it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::case::missing;

/// Which cgroup version has the memory controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    V2,
}

/// Where the memory controller is.
#[derive(Clone, Debug)]
pub struct MemoryController {
    pub version: CgroupVersion,
    /// Mount point of its hierarchy.
    pub mount: PathBuf,
}

/// Where hierarchies of either version are mounted.
pub fn cgroup_mounts() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let cgroups = fields.filter(|fields| matches!(fields.get(2), Some(&"cgroup" | &"cgroup2")));
    Ok(cgroups.map(|fields| PathBuf::from(fields[1])).collect())
}

/// Where the hierarchy of a v1 controller is mounted, if it is.
pub fn v1_mount(controller: &str) -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let is_it = fields.get(2) == Some(&"cgroup")
            && fields.get(3)?.split(',').any(|option| option == controller);
        is_it.then(|| PathBuf::from(fields[1]))
    }))
}

/// Where the v2 hierarchy is mounted, if it is.
pub fn v2_mount() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut unified = fields.filter(|fields| fields.get(2) == Some(&"cgroup2"));
    Ok(unified.next().map(|fields| PathBuf::from(fields[1])))
}

/// Finds the memory controller in this process's mounts.
pub fn memory_controller() -> Result<MemoryController> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut unified = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(_), Some(at), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            bail!("unreadable line in /proc/self/mounts: {line}");
        };
        let mount = PathBuf::from(at);
        if kind == "cgroup" && options.split(',').any(|option| option == "memory") {
            return Ok(MemoryController { version: CgroupVersion::V1, mount });
        }
        if kind == "cgroup2" && lists(&mount.join("cgroup.controllers"), "memory")? {
            unified = Some(MemoryController { version: CgroupVersion::V2, mount });
        }
    }
    unified.context("no mounted hierarchy has the memory controller")
}

/// Which version has a controller, and where its hierarchy is mounted.
pub fn controller(name: &str) -> Result<(CgroupVersion, PathBuf)> {
    if let Some(mount) = v1_mount(name)? {
        return Ok((CgroupVersion::V1, mount));
    }
    let mount = v2_mount()?.with_context(|| format!("no hierarchy has the {name} controller"))?;
    match lists(&mount.join("cgroup.controllers"), name)? {
        true => Ok((CgroupVersion::V2, mount)),
        false => bail!("the v2 hierarchy has no {name} controller"),
    }
}

/// Whether both versions are mounted.
pub fn hybrid() -> Result<bool> {
    let unified = fs::read_to_string("/proc/self/mounts")?.contains(" cgroup2 ");
    Ok(unified && memory_controller()?.version == CgroupVersion::V1)
}

/// Whether a file of words has `word`.
pub fn lists(file: &Path, word: &str) -> Result<bool> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.split_whitespace().any(|known| known == word))
}

/// Whether the kernel is at least `major.minor`.
pub fn kernel_at_least(major: u32, minor: u32) -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(a)), Some(Ok(b))) => Ok((a, b) >= (major, minor)),
        _ => bail!("kernel release without numbers: {release}"),
    }
}

/// OOM kills of the whole machine since it started, as the kernel counts them.
pub fn oom_kills() -> Result<u64> {
    let vmstat = fs::read_to_string("/proc/vmstat")?;
    let count = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(count.context("no oom_kill in /proc/vmstat")?.parse()?)
}

/// NUMA nodes that are online, as in `0-1,3`.
pub fn numa_nodes() -> Result<Vec<u32>> {
    let online = fs::read_to_string("/sys/devices/system/node/online")?;
    let mut nodes = Vec::new();
    for range in online.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        nodes.extend(first.parse::<u32>()?..=last.parse::<u32>()?);
    }
    Ok(nodes)
}

/// A virtual machine that is ours alone: its memory may be exhausted, its mounts changed.
pub fn in_vm() -> bool {
    env::var_os("CTRACE_TEST_VM").is_some_and(|value| value == "1")
}

/// How often to do what is done `count` times on a real machine: an emulated one needs some ten
/// seconds for each container.
pub fn rounds(count: usize) -> usize {
    if in_vm() { count.min(5) } else { count }
}

/// Whether this is a CI run.
pub fn on_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// How long to wait for something that takes at most `seconds` on hardware.
pub fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if in_vm() { seconds * 10 } else { seconds })
}

/// A program of the system's packages, else one in `PATH`.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    system
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| missing(format!("{name} is not installed")))
}

/// The program under test.
pub fn ctrace() -> Result<PathBuf> {
    let binary = match env::var_os("CTRACE_BIN") {
        Some(path) => PathBuf::from(path),
        None => env::current_exe()?
            .ancestors()
            .nth(3)
            .context("the test binary is not in target/<profile>/deps")?
            .join("release/ctrace"),
    };
    if !binary.is_file() {
        bail!("{} is not there: build ctrace or set CTRACE_BIN", binary.display());
    }
    Ok(binary)
}
