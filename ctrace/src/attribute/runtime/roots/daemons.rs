//! The daemons that run on the host, by `/proc`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Ancestors that are looked at. A rootless dockerd is a grandchild or great-grandchild of
/// rootlesskit's.
const MAX_ANCESTORS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Dockerd,
    Containerd,
}

/// A running daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    pub program: Program,
    pub arguments: Vec<String>,
}

/// The daemons in `proc`. One in a container has paths of that container: it is not the host's. One in
/// the host's mount namespace is root's: any user can run something of that name. A rootless one is
/// below rootlesskit, in a mount namespace of its own, where the paths are the host's.
pub fn running(proc: &Path, rootless: bool) -> Vec<Daemon> {
    let host = mount_namespace(&proc.join("1"));
    // The first process may not let itself be looked at; then the files that are read are those of
    // this process.
    let Some(host) = host.or_else(|| mount_namespace(&proc.join("self"))) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let mut daemons = Vec::new();
    for entry in entries.flatten() {
        let is_pid = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if !is_pid {
            continue;
        }
        let process = entry.path();
        let program = match comm(&process).as_deref() {
            Some("dockerd") => Program::Dockerd,
            Some("containerd") => Program::Containerd,
            _ => continue,
        };
        let is_hosts = mount_namespace(&process).is_some_and(|own| own == host);
        let is_wanted = if rootless {
            !is_hosts && is_below_rootlesskit(proc, &process, &host)
        } else {
            is_hosts && is_roots(&process)
        };
        if is_wanted {
            daemons.push(Daemon { program, arguments: arguments(&process) });
        }
    }
    daemons
}

/// Whether the nearest ancestor in the host's mount namespace is rootlesskit; of a container's
/// process it is a shim or conmon.
fn is_below_rootlesskit(proc: &Path, process: &Path, host: &Path) -> bool {
    let mut process = process.to_owned();
    for _ in 0..MAX_ANCESTORS {
        let Some(parent) = parent(&process) else { return false };
        process = proc.join(parent);
        if mount_namespace(&process).is_some_and(|own| own == host) {
            return comm(&process).as_deref() == Some("rootlesskit");
        }
    }
    false
}

fn mount_namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

fn comm(process: &Path) -> Option<String> {
    let comm = fs::read(process.join("comm")).ok()?;
    Some(String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned())
}

/// Whether root started the process: all its uids are 0, and not because the program is set-uid, which
/// a user can call by any name.
fn is_roots(process: &Path) -> bool {
    let uids = status(process, "Uid:");
    let is_root = uids.is_some_and(|uids| uids.split_whitespace().all(|uid| uid == "0"));
    let program = fs::metadata(process.join("exe"));
    is_root && program.is_ok_and(|program| program.mode() & libc::S_ISUID == 0)
}

fn parent(process: &Path) -> Option<OsString> {
    let pid = status(process, "PPid:")?;
    pid.parse::<u32>().ok().filter(|pid| *pid != 0).map(|pid| pid.to_string().into())
}

/// A line of `/proc/PID/status`, without its `key`.
fn status(process: &Path, key: &str) -> Option<String> {
    let status = fs::read(process.join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
}

fn arguments(process: &Path) -> Vec<String> {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let arguments = line.split(|byte| *byte == 0).filter(|argument| !argument.is_empty());
    arguments.map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const HOST: &str = "mnt:[1]";

    fn process(proc: &Path, pid: u32, parent: u32, comm: &str, mnt: &str, line: &str) {
        let directory = proc.join(pid.to_string());
        fs::create_dir_all(directory.join("ns")).unwrap();
        symlink(mnt, directory.join("ns/mnt")).unwrap();
        fs::write(directory.join("comm"), format!("{comm}\n")).unwrap();
        let status = format!("Name:\t{comm}\nPPid:\t{parent}\nUid:\t0\t0\t0\t0\nGid:\t0\n");
        fs::write(directory.join("status"), status).unwrap();
        fs::write(directory.join("exe"), "").unwrap();
        fs::write(directory.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
    }

    fn found(proc: &Path) -> Vec<(String, bool)> {
        let mut found: Vec<_> = [false, true]
            .into_iter()
            .flat_map(|rootless| running(proc, rootless).into_iter().zip(iter::repeat(rootless)))
            .map(|(daemon, rootless)| (daemon.arguments.join(" "), rootless))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_hosts_and_rootless_ones_but_not_a_containers() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        process(proc, 1, 0, "systemd", HOST, "/sbin/init");
        process(proc, 10, 1, "dockerd", HOST, "dockerd --data-root /d");
        process(proc, 11, 10, "containerd", HOST, "containerd --config /c");
        process(proc, 12, 1, "sshd", HOST, "dockerd --data-root /lie");
        process(proc, 20, 1, "containerd-shim", HOST, "containerd-shim");
        process(proc, 21, 20, "tini", "mnt:[2]", "tini");
        process(proc, 22, 21, "dockerd", "mnt:[2]", "dockerd --data-root /inside");
        process(proc, 30, 1, "rootlesskit", HOST, "rootlesskit");
        process(proc, 31, 30, "exe", "mnt:[3]", "/proc/self/exe");
        process(proc, 32, 31, "dockerd", "mnt:[3]", "dockerd --rootless");
        // Its parents are in a circle.
        process(proc, 41, 42, "dockerd", "mnt:[4]", "dockerd --circle");
        process(proc, 42, 41, "sh", "mnt:[4]", "sh");
        // It has ended meanwhile.
        fs::create_dir(proc.join("50")).unwrap();
        let expected = [
            ("containerd --config /c".to_owned(), false),
            ("dockerd --data-root /d".to_owned(), false),
            ("dockerd --rootless".to_owned(), true),
        ];
        assert_eq!(found(proc), expected);
    }

    #[test]
    fn without_the_first_process_the_own_namespace_is_the_hosts() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        process(proc, 10, 1, "dockerd", HOST, "dockerd");
        process(proc, 11, 1, "dockerd", "mnt:[2]", "dockerd --data-root /inside");
        assert_eq!(found(proc), []);
        symlink("10", proc.join("self")).unwrap();
        assert_eq!(found(proc), [("dockerd".to_owned(), false)]);
    }

    #[test]
    fn what_a_user_calls_a_daemon_is_none() {
        let proc = tempfile::tempdir().unwrap();
        let proc = proc.path();
        for (pid, uids, mode) in [
            (1, "0\t0\t0\t0", 0o755),
            (2, "1000\t1000\t1000\t1000", 0o755),
            (3, "1000\t0\t0\t0", 0o4755),
            // As sudo while it asks for the password.
            (4, "0\t0\t0\t0", 0o4755),
            (5, "root", 0o755),
        ] {
            process(proc, pid, 0, "dockerd", HOST, &format!("dockerd {pid}"));
            let at = |name: &str| proc.join(pid.to_string()).join(name);
            fs::write(at("status"), format!("Uid:\t{uids}\n")).unwrap();
            fs::set_permissions(at("exe"), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(found(proc), [("dockerd 1".to_owned(), false)]);
    }
}
