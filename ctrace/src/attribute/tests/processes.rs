//! Of processes whose mount namespace or parents tell.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::event::{Namespace, Phase};

/// A process in the mount namespace of that number.
fn process(key: CgroupKey, mnt_ns: u64) -> Identity {
    let inode = if mnt_ns == 0 { HOST_NS } else { 1 };
    Identity {
        v2: Some(key),
        mnt_ns: Namespace { inode: Some(inode), id: Some(mnt_ns) },
        ..Identity::default()
    }
}

/// The first process of a container.
fn first(key: CgroupKey, mnt_ns: u64) -> Identity {
    Identity { is_pid_nested: true, is_first_in_pid_ns: true, ..process(key, mnt_ns) }
}

fn kin(process: u32, parent: u32) -> Kinship {
    Kinship { process: Some((process, 7)), parent: Some((parent, 7)) }
}

fn phase(attribution: &Attribution) -> (Option<&str>, Via, Option<Phase>) {
    (id(attribution), attribution.via, attribution.phase)
}

#[test]
fn a_process_on_its_way_into_a_container() {
    let mut host = Host::new();
    host.docker(A, "web");
    host.attributor.on_readable();
    let container = host.learn(0, 1000, &format!("/docker/{A}"));
    let unit = host.learn(0, 2000, "/system.slice/docker.service");
    // The runtime sets it up: in the cgroup, in the host's mounts.
    let found = host.whose(&process(container, 0), Kinship::default());
    assert_eq!(phase(&found), (Some(A), Via::Cgroup, Some(Phase::RuntimeInit)));
    let found = host.whose(&first(container, 9), Kinship::default());
    assert_eq!(phase(&found), (Some(A), Via::Cgroup, None));
    // `docker exec`: first the mounts, then the cgroup.
    let found = host.whose(&process(unit, 9), Kinship::default());
    assert_eq!(phase(&found), (Some(A), Via::Namespace, Some(Phase::Joining)));
    assert_eq!((name(&found), &found.unit), (Some("web"), &None));
    // `unshare -m` inside.
    let found = host.whose(&process(container, 10), Kinship::default());
    assert_eq!(phase(&found), (Some(A), Via::Cgroup, None));
}

/// It has sent nothing since ctrace runs; its first process, here this one, tells.
#[test]
fn a_process_on_its_way_into_an_idle_container() {
    let mut host = Host::new();
    host.cgroup(0, "/web");
    host.runc("web", "/b", 0);
    let own = std::process::id();
    host.write("cgroup/unified/web/cgroup.procs", &own.to_string());
    host.attributor.on_readable();
    host.attributor.walk(host.now);
    let unit = host.learn(0, 2000, "/system.slice/docker.service");
    let inode = fs::metadata(format!("/proc/{own}/ns/mnt")).unwrap().ino() as u32;
    let mnt_ns = Namespace { inode: Some(inode), id: Some(9) };
    let joining = Identity { mnt_ns, ..process(unit, 9) };
    let found = host.whose(&joining, Kinship::default());
    assert_eq!(phase(&found), (Some("web"), Via::Namespace, Some(Phase::Joining)));
}

/// As by `nsenter -m` from a container with a pid namespace of its own.
#[test]
fn who_goes_on_into_anothers_mounts_does_not_own_them() {
    let mut host = Host::new();
    let debug = host.learn(0, 1000, &format!("/docker/{A}"));
    let unit = host.learn(0, 3000, "/system.slice/docker.service");
    let inside = Identity { is_pid_nested: true, ..process(debug, 9) };
    assert_eq!(id(&host.whose(&inside, Kinship::default())), Some(A));
    assert_eq!(id(&host.whose(&process(unit, 9), Kinship::default())), None);
}

/// Three successive containers had the same inode.
#[test]
fn a_namespace_goes_by_its_number() {
    let mut host = Host::new();
    let one = host.learn(0, 1000, &format!("/docker/{A}"));
    let two = host.learn(0, 2000, &format!("/docker/{B}"));
    let unit = host.learn(0, 3000, "/system.slice/docker.service");
    host.whose(&first(one, 9), Kinship::default());
    host.whose(&first(two, 10), Kinship::default());
    assert_eq!(id(&host.whose(&process(unit, 9), Kinship::default())), Some(A));
    assert_eq!(id(&host.whose(&process(unit, 10), Kinship::default())), Some(B));
    // The kernel has no numbers: nothing is claimed by the inode.
    let mut who = process(unit, 9);
    who.mnt_ns.id = None;
    assert_eq!(phase(&host.whose(&who, Kinship::default())), (None, Via::Unit, None));
}

/// A daemon with mounts of its own starts containers from there.
#[test]
fn a_runtimes_own_namespace_is_no_containers() {
    let mut host = Host::new();
    let container = host.learn(0, 1000, &format!("/docker/{A}"));
    let unit = host.learn(0, 2000, "/system.slice/docker.service");
    host.whose(&process(container, 5), Kinship::default());
    assert_eq!(phase(&host.whose(&process(unit, 5), Kinship::default())), (None, Via::Unit, None));
}

#[test]
fn joining_a_container_in_a_container() {
    let mut host = Host::new();
    let outer = host.learn(0, 1000, &format!("/docker/{A}"));
    let inner = host.learn(0, 2000, &format!("/docker/{A}/docker/{B}"));
    host.whose(&first(outer, 9), Kinship::default());
    // The inner runtime, still in the outer's mounts and pid namespace.
    let runtime = Identity { is_pid_nested: true, ..process(inner, 9) };
    let found = host.whose(&runtime, Kinship::default());
    assert_eq!(phase(&found), (Some(B), Via::CgroupPath, Some(Phase::RuntimeInit)));
    host.whose(&first(inner, 10), Kinship::default());
    let found = host.whose(&process(outer, 10), Kinship::default());
    assert_eq!(phase(&found), (Some(B), Via::Namespace, Some(Phase::Joining)));
    assert_eq!(found.outer[0].id, A);
    // The outer's own processes stay its own.
    let found = host.whose(&process(outer, 9), Kinship::default());
    assert_eq!(phase(&found), (Some(A), Via::CgroupPath, None));
}

/// `nsenter` out of one container into the mounts of another.
#[test]
fn a_container_in_anothers_mounts_stays_itself() {
    let mut host = Host::new();
    let one = host.learn(0, 1000, &format!("/docker/{A}"));
    let two = host.learn(0, 2000, &format!("/docker/{B}"));
    host.whose(&first(one, 9), Kinship::default());
    let found = host.whose(&process(two, 9), Kinship::default());
    assert_eq!(phase(&found), (Some(B), Via::CgroupPath, None));
}

#[test]
fn of_cgroups_that_disagree_the_mounts_decide() {
    let mut host = Host::new();
    let one = host.learn(0, 1000, &format!("/docker/{A}"));
    let two = host.learn(4, 2000, &format!("/docker/{B}"));
    let torn = Identity { v1: Some(two), ..process(one, 9) };
    assert_eq!(id(&host.whose(&torn, Kinship::default())), Some(A));
    let first_of_two = Identity { v2: None, v1: Some(two), ..first(two, 9) };
    host.whose(&first_of_two, Kinship::default());
    assert_eq!(id(&host.whose(&torn, Kinship::default())), Some(B));
}

/// `podman run --cgroups=disabled` of a process that is gone: its children are still known.
#[test]
fn lineage_is_for_what_nothing_else_tells() {
    let mut host = Host::new();
    let session = host.learn(0, 1000, "/user.slice/user-0.slice/session-1.scope");
    let known = Attribution {
        container: Some(Arc::new(crate::event::Container { id: A.into(), ..Default::default() })),
        via: Via::Mountinfo,
        ..Attribution::default()
    };
    host.attributor.processes.insert((50, 7), known.into(), 1);
    let child = host.whose(&process(session, 9), kin(51, 50));
    assert_eq!(phase(&child), (Some(A), Via::Lineage, None));
    let grandchild = host.whose(&process(session, 10), kin(52, 51));
    assert_eq!(phase(&grandchild), (Some(A), Via::Lineage, None));
    // The same number at another time is another process.
    let mut stranger = kin(53, 51);
    stranger.parent = Some((51, 8));
    assert_eq!(phase(&host.whose(&process(session, 11), stranger)), (None, Via::Unit, None));
    // In the host's mounts nobody is in a container for his parents' sake.
    assert_eq!(phase(&host.whose(&process(session, 0), kin(54, 51))), (None, Via::Unit, None));
}

/// Its processes are gone before anybody could read their mounts.
#[test]
fn a_container_without_a_cgroup_that_nobody_knows_is_not_the_hosts() {
    let mut host = Host::new();
    let root = host.learn(0, 1000, "/user.slice");
    let gone = kin(u32::MAX, u32::MAX);
    assert_eq!(host.whose(&process(root, 9), gone).via, Via::Host);
    let found = host.whose(&first(root, 10), gone);
    assert_eq!((found.via, found.path.is_some()), (Via::Unknown, true));
}

#[test]
fn threads_of_the_kernel_are_the_kernels() {
    let mut host = Host::new();
    let root = host.cgroup(0, "/");
    let kernel = Identity { is_kernel_thread: true, ..process(root, 0) };
    assert_eq!(host.whose(&kernel, Kinship::default()).via, Via::Kernel);
    // On behalf of a container, where the event says so.
    let container = host.learn(0, 1000, &format!("/docker/{A}"));
    let kernel = Identity { owner: Some(container), ..kernel };
    assert_eq!(id(&host.whose(&kernel, Kinship::default())), Some(A));
}
