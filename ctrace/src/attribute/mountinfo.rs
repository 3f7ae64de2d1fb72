//! What a process's mounts say about its container: for those that were told to have no cgroup of
//! their own (`podman run --cgroups=disabled`), and those that have not joined theirs yet.
//!
//! Engines bind-mount `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` from the container's own
//! directory, `…/containers/<id>/…` (docker, podman, CRI-O), so that the root of that mount names it.

use std::fs;

use super::identity::ProcessKey;
use super::inits;
use super::runtime::Init;
use crate::event::is_hex64;

/// Files that engines mount into every container.
const MOUNTED: [&[u8]; 3] = [b"/etc/hostname", b"/etc/hosts", b"/etc/resolv.conf"];

/// The container's id that the text of a `/proc/PID/mountinfo` names: proc_pid_mountinfo(5). Absent
/// where it names none, or several.
pub fn container_id(mountinfo: &[u8]) -> Option<&str> {
    let mut ids = mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        MOUNTED.contains(&point).then(|| id_in(root)).flatten()
    });
    let id = ids.next()?;
    ids.all(|other| other == id).then_some(id)
}

/// The id in `…/containers/<64 hex>/…` or `…/overlay-containers/<64 hex>/…`.
fn id_in(root: &[u8]) -> Option<&str> {
    let mut parts = std::str::from_utf8(root).ok()?.rsplit('/').skip(1);
    let mut id = parts.next()?;
    for above in parts {
        if is_hex64(id) && (above == "containers" || above.ends_with("-containers")) {
            return Some(id);
        }
        id = above;
    }
    None
}

/// The mountinfo of the process, where it is still the same process and still in the mount namespace
/// with that inode.
pub fn read((pid, start_ns): ProcessKey, mnt_ns: u32) -> Option<Vec<u8>> {
    let init = Init { pid, start_ticks: Some(ticks(start_ns)) };
    let is_in_it = || inits::namespace(init) == Some(mnt_ns);
    // Before as well: there may be much to read in vain.
    let mountinfo = is_in_it().then(|| fs::read(format!("/proc/{pid}/mountinfo")))?.ok()?;
    is_in_it().then_some(mountinfo)
}

/// Clock ticks as field 22 of `/proc/PID/stat` has them: `USER_HZ` is 100 on all that ctrace runs on.
pub fn ticks(boot_ns: u64) -> u64 {
    boot_ns / 10_000_000
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";
    const B: &str = "eeb616351073049baabdcf877af9928fc984fc5155f5177012221b650a672b12";

    fn line(root: &str, point: &str) -> String {
        format!("36 27 254:0 {root} {point} rw,relatime - ext4 /dev/vda rw\n")
    }

    #[test]
    fn engines_mount_their_files() {
        for root in [
            format!("/var/lib/docker/containers/{A}/hostname"),
            format!("/containers/storage/overlay-containers/{A}/userdata/hostname"),
            format!("/storage/overlay-containers/{A}/userdata/hostname"),
        ] {
            let text = line("/", "/") + &line(&root, "/etc/hostname") + &line("/x", "/y");
            assert_eq!(container_id(text.as_bytes()), Some(A), "{root}");
        }
    }

    #[test]
    fn what_names_none() {
        let docker = |id: &str| format!("/var/lib/docker/containers/{id}/hostname");
        for text in [
            String::new(),
            line("/", "/"),
            // Any mount may hold the words; only the engines' own count.
            line(&docker(A), "/data"),
            line(&docker("web"), "/etc/hostname"),
            line(&format!("/etc/{A}/hostname"), "/etc/hostname"),
            line(&docker(A), "/etc/hostname") + &line(&docker(B), "/etc/hosts"),
        ] {
            assert_eq!(container_id(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_process_of_another_time_is_another() {
        let own = procfs::process::Process::myself().unwrap();
        let (pid, start) = (own.pid as u32, own.stat().unwrap().starttime * 10_000_000);
        let inode = fs::metadata("/proc/self/ns/mnt").unwrap().ino() as u32;
        assert!(read((pid, start), inode).is_some());
        assert!(read((pid, start + 10_000_000), inode).is_none());
        assert!(read((pid, start), inode + 1).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = container_id(&bytes);
        }
    }
}
