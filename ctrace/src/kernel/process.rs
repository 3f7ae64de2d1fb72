//! Who a living process is, from `/proc`: for what no program of ctrace's was there to see.

use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use ctrace_common::{COMM_LEN, TaskIdentity};

use super::{CgroupLayout, clock};

/// All that can be read of a living process, but for its start, which `/proc` has to a hundredth of a
/// second only: that comes beside it, nanoseconds since boot, rounded down. Absent where the process
/// is gone, or dead and not yet waited for.
pub fn identity(pid: u32, layout: &CgroupLayout) -> Option<(TaskIdentity, u64)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let started = parse_start(&read("stat")?)?;
    let mut identity = parse_status(&read("status")?)?;
    let cgroups = read("cgroup").unwrap_or_default();
    let id = |hierarchy: u32| {
        path_in(&cgroups, hierarchy).and_then(|path| layout.id_of_path(hierarchy, path))
    };
    identity.cgroup_v2 = id(0).unwrap_or(0);
    if let Some((hierarchy, _)) = layout.identity_v1() {
        identity.hierarchy_v1 = hierarchy.id;
        identity.cgroup_v1 = id(hierarchy.id).unwrap_or(0);
    }
    let inode = |kind: &str| {
        let metadata = fs::metadata(format!("/proc/{pid}/ns/{kind}"));
        metadata.map_or(0, |metadata| metadata.ino() as u32)
    };
    identity.pid_ns = inode("pid");
    identity.mnt_ns = inode("mnt");
    identity.net_ns = inode("net");
    identity.mnt_ns_id = mnt_ns_id(pid).unwrap_or(0);
    // Another process may have the id by now: only one that was there all the time is believed.
    let is_one = identity.mnt_ns != 0 && parse_start(&read("stat")?)? == started;
    is_one.then_some((identity, started))
}

/// When a process began, from `/proc/PID/stat`: nanoseconds since boot. The name in it may hold spaces
/// and brackets.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    clock::boot_ns_of_ticks(ticks)
}

/// The kernel's own number of the mount namespace, from 6.11 on.
fn mnt_ns_id(pid: u32) -> Option<u64> {
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt")).ok()?;
    let mut id = 0_u64;
    // SAFETY: the call writes 8 bytes.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_MNTNS_ID, &raw mut id) };
    (result == 0).then_some(id)
}

/// The path in `/proc/PID/cgroup`: `4:memory:/docker/…`, and with version 2 `0::/…`.
fn path_in(cgroups: &str, hierarchy: u32) -> Option<&str> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, _, path) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(hierarchy)).then_some(path)
    })
}

/// `/proc/PID/status`: names, ids and users, as proc_pid_status(5) has them.
fn parse_status(status: &str) -> Option<TaskIdentity> {
    let mut identity = TaskIdentity::default();
    let mut lines = status.lines().filter_map(|line| line.split_once(":\t"));
    // The name comes first; one with a line break is escaped.
    let (_, name) = lines.next().filter(|(field, _)| *field == "Name")?;
    for (to, from) in identity.comm[..COMM_LEN - 1].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    for (field, value) in lines {
        let mut words = value.split_ascii_whitespace();
        match field {
            "Tgid" => identity.tgid = value.parse().ok()?,
            "Pid" => identity.tid = value.parse().ok()?,
            "PPid" => identity.ppid = value.parse().ok()?,
            "Uid" => {
                identity.uid = words.next()?.parse().ok()?;
                identity.flags |= TaskIdentity::HAS_UID;
            }
            "NSpid" => {
                identity.pid_ns_level = words.clone().count().saturating_sub(1) as u16;
                identity.pid_in_ns = words.next_back()?.parse().ok()?;
            }
            _ => {}
        }
    }
    (identity.tgid != 0).then_some(identity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status() {
        let text = "Name:\tsh\nUmask:\t0022\nTgid:\t77\nNgid:\t0\nPid:\t77\nPPid:\t5\n\
                    Uid:\t3\t3\t3\t3\nNSpid:\t77\t4\t1\n";
        let identity = parse_status(text).expect("whole");
        assert_eq!(&identity.comm[..3], b"sh\0");
        assert_eq!((identity.tgid, identity.tid, identity.ppid, identity.uid), (77, 77, 5, 3));
        assert_eq!((identity.pid_in_ns, identity.pid_ns_level), (1, 2));
        assert!(parse_status("").is_none() && parse_status("Name:\tsh\n").is_none());
    }

    #[test]
    fn starts() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2";
        assert_eq!(parse_start(stat), Some(42_420_000_000));
        assert_eq!(parse_start("7 (a) S 1"), None);
    }

    #[test]
    fn cgroups() {
        let text = "4:memory:/docker/a:b\n0::/x\n";
        assert_eq!(path_in(text, 4), Some("/docker/a:b"));
        assert_eq!((path_in(text, 0), path_in(text, 9)), (Some("/x"), None));
    }

    #[test]
    fn this_process() {
        let Ok(layout) = CgroupLayout::of_host() else { return };
        let (identity, started) = identity(std::process::id(), &layout).expect("it runs");
        assert!(started > 0);
        let inode = fs::metadata("/proc/self/ns/mnt").expect("/proc").ino();
        assert_eq!((identity.tgid, u64::from(identity.mnt_ns)), (std::process::id(), inode));
    }

    proptest! {
        #[test]
        fn any_text(text in any::<String>()) {
            let _ = parse_status(&text);
            let _ = path_in(&text, 0);
            let _ = parse_start(&text);
        }
    }
}
