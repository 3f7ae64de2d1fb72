//! What the cgroup files and `/proc` say of a container now. Unreadable is unknown.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::runtime::{self, Init};
use super::super::staged::Entry;
use crate::event::{CgroupPlace, FirstProcess, Listed, NamespaceInodes, Source, State};

/// Cgroups that are looked into for a process, below one container's.
const MAX_BELOW: usize = 1 << 10;

/// Fills in what lives. `mounts`: each hierarchy and where it is mounted.
pub fn look(listed: &mut Listed, told: &[Entry], mounts: &[(u32, PathBuf)], details: bool) {
    let directories: Vec<PathBuf> =
        listed.cgroups.iter().filter_map(|place| directory(place, mounts)).collect();
    let inside = directories.iter().map(|directory| pids(directory)).find(|pids| !pids.is_empty());
    let inside = inside.unwrap_or_default();
    if let Some((process, from)) = first_process(listed, told, &inside, &directories) {
        listed.sources.push(Source { fact: "pid", from });
        listed.process = Some(process);
    }
    let is_seen = !directories.is_empty() || listed.cgroups.is_empty();
    let stated = match &listed.process {
        Some(process) => Some(doing(process.pid, &directories)),
        None if is_seen && inside.is_empty() => at_rest(told),
        // What it has cannot be seen from here.
        None => None,
    };
    if let Some((state, from)) = stated {
        listed.sources.push(Source { fact: "state", from });
        listed.state = Some(state);
    }
    if details {
        let number = |file| directories.iter().find_map(|directory| number(&directory.join(file)));
        listed.tasks = number("pids.current");
        listed.memory_bytes = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
        if let Some(process) = &mut listed.process {
            process.namespaces = namespaces(process.pid);
        }
    }
}

/// Processes in the first of the cgroups that has any.
pub fn processes(places: &[CgroupPlace], mounts: &[(u32, PathBuf)]) -> u64 {
    let directories = places.iter().filter_map(|place| directory(place, mounts));
    let counts = directories.map(|directory| pids(&directory).len());
    counts.into_iter().find(|count| *count > 0).unwrap_or(0) as u64
}

fn directory(place: &CgroupPlace, mounts: &[(u32, PathBuf)]) -> Option<PathBuf> {
    let (_, mount) = mounts.iter().find(|mount| mount.0 == place.key.hierarchy)?;
    let directory = mount.join(place.path.trim_start_matches('/'));
    // The path of a name that is no UTF-8 is another's, or nobody's.
    let is_it = directory.symlink_metadata().is_ok_and(|found| found.ino() == place.key.id);
    is_it.then_some(directory)
}

/// The process that the runtime's files name, where it surely is the one, else that with the lowest
/// number; and which file said so.
fn first_process(
    listed: &Listed,
    told: &[Entry],
    inside: &[u32],
    directories: &[PathBuf],
) -> Option<(FirstProcess, String)> {
    let mut inits: Vec<(Init, &Entry)> =
        told.iter().filter_map(|entry| Some((entry.init()?, entry))).collect();
    // Without its start, the pid may be another's by now.
    inits.sort_by_key(|(init, _)| init.start_ticks.is_none());
    for (Init { pid, start_ticks: told_ticks }, entry) in inits {
        let Some(ticks) = start_ticks(pid) else { continue };
        let is_inside = inside.contains(&pid);
        let is_it = match told_ticks {
            Some(told) => told == ticks && (is_inside || listed.cgroups.is_empty()),
            None => is_inside,
        };
        if is_it {
            let from = entry.source().to_string_lossy().into_owned();
            return Some((process(pid, Some(ticks)), from));
        }
    }
    let pid = *inside.iter().filter(|pid| **pid != 0).min()?;
    let from = directories.first()?.join("cgroup.procs").to_string_lossy().into_owned();
    Some((process(pid, start_ticks(pid)), from))
}

fn process(pid: u32, start_ticks: Option<u64>) -> FirstProcess {
    let namespaces = NamespaceInodes::default();
    FirstProcess { pid, start_ticks, started_ns: None, namespaces }
}

/// What a container with a process does, and which file says so.
fn doing(pid: u32, directories: &[PathBuf]) -> (State, String) {
    match directories.iter().find_map(|directory| frozen(directory)) {
        Some(file) => (State::Paused, file.to_string_lossy().into_owned()),
        None => (State::Running, format!("/proc/{pid}/stat")),
    }
}

/// Why a container has no process, and which file says so. One that says that it runs is an old one.
fn at_rest(told: &[Entry]) -> Option<(State, String)> {
    let (state, entry) = told.iter().find_map(|entry| Some((entry.state()?, entry)))?;
    let state = match state {
        State::Running | State::Paused => State::Stopped,
        State::Created | State::Stopped => state,
    };
    Some((state, entry.source().to_string_lossy().into_owned()))
}

/// The file that says that the cgroup's processes are frozen, by itself or by one above it, if so.
/// `cgroup.events` has `frozen` since Linux 5.2.
fn frozen(directory: &Path) -> Option<PathBuf> {
    let says = |file: &str, line: &str| {
        let file = directory.join(file);
        let content = fs::read_to_string(&file).ok()?;
        content.lines().any(|found| found == line).then_some(file)
    };
    says("freezer.state", "FROZEN").or_else(|| says("cgroup.events", "frozen 1"))
}

/// All processes in the cgroup and below, at most those of [`MAX_BELOW`] cgroups. 0 stands for one
/// that this pid namespace does not have.
fn pids(directory: &Path) -> Vec<u32> {
    let mut pids = Vec::new();
    let mut left = vec![directory.to_owned()];
    for _ in 0..MAX_BELOW {
        let Some(directory) = left.pop() else { break };
        // A threaded cgroup refuses it; its processes are listed above it.
        let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
        // A directory of kernfs has a link from each of its subdirectories.
        if directory.symlink_metadata().is_ok_and(|metadata| metadata.nlink() != 2) {
            left.extend(runtime::subdirectories(&directory));
        }
    }
    pids
}

/// Field 22 of `/proc/PID/stat`, see proc_pid_stat(5).
fn start_ticks(pid: u32) -> Option<u64> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    Some(process.stat().ok()?.starttime)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim_end().parse().ok()
}

fn namespaces(pid: u32) -> NamespaceInodes {
    let inode = |kind| {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/{kind}"));
        namespace.ok().map(|namespace| namespace.ino())
    };
    NamespaceInodes {
        pid: inode("pid"),
        mnt: inode("mnt"),
        net: inode("net"),
        user: inode("user"),
        uts: inode("uts"),
        ipc: inode("ipc"),
        cgroup: inode("cgroup"),
    }
}
