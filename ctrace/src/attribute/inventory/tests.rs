use std::fs;
use std::os::unix::fs::MetadataExt;

use super::super::tests::{A, B, Host};
use super::*;

/// All of a host's containers after a walk.
fn list(host: &mut Host, all: bool) -> Vec<Listed> {
    host.attributor.on_readable();
    host.attributor.walk(host.now);
    host.attributor.inventory(&Ask { wanted: &|_| true, all, details: true })
}

fn ids(list: &[Listed]) -> Vec<&str> {
    list.iter().map(|listed| listed.container.id.as_str()).collect()
}

/// Puts a process into a cgroup of the fake file system.
fn put(host: &Host, hierarchy: u32, path: &str, pids: &str) {
    host.cgroup(hierarchy, path);
    let mount = if hierarchy == 0 { "cgroup/unified" } else { "cgroup/memory" };
    host.write(&format!("{mount}{path}/cgroup.procs"), pids);
}

fn own_ticks() -> (u32, u64) {
    let own = procfs::process::Process::myself().unwrap().stat().unwrap();
    (own.pid.unsigned_abs(), own.starttime)
}

#[test]
fn a_container_in_two_hierarchies_is_one() {
    let mut host = Host::new();
    let (pid, ticks) = own_ticks();
    host.docker(A, "batch");
    put(&host, 0, &format!("/docker/{A}"), &format!("{pid}\n"));
    put(&host, 4, &format!("/docker/{A}"), &format!("{pid}\n"));
    host.cgroup(0, &format!("/docker/{A}/app"));
    host.write(&format!("cgroup/memory/docker/{A}/memory.usage_in_bytes"), "4096\n");
    host.write(&format!("cgroup/unified/docker/{A}/pids.current"), "3\n");
    let list = list(&mut host, false);
    assert_eq!(ids(&list), [A]);
    let Listed { container, outer, cgroups, state, process, tasks, memory_bytes, sources } =
        &list[0];
    assert_eq!((container.name.as_deref(), outer.len()), (Some("batch"), 0));
    let places: Vec<_> = cgroups.iter().map(|place| (place.key.hierarchy, &*place.path)).collect();
    let path = format!("/docker/{A}");
    assert_eq!(places, [(0, &*path), (4, &*path)]);
    assert_eq!((*state, *tasks, *memory_bytes), (Some(State::Running), Some(3), Some(4096)));
    let process = process.as_ref().unwrap();
    assert_eq!((process.pid, process.start_ticks), (pid, Some(ticks)));
    let inode = fs::metadata("/proc/self/ns/mnt").unwrap().ino();
    assert_eq!(process.namespaces.mnt, Some(inode));
    let from = |fact: &str| sources.iter().find(|source| source.fact == fact).unwrap();
    assert!(from("metadata").from.ends_with("config.v2.json"));
    assert_eq!(from("cgroup").from, "walk");
    assert!(from("pid").from.ends_with("cgroup.procs"));
}

#[test]
fn the_process_is_below_the_containers_own_cgroup() {
    let mut host = Host::new();
    let path = format!("/machine.slice/libpod-{A}.scope");
    host.cgroup(0, &path);
    put(&host, 0, &format!("{path}/container"), "4194304\n4194303\n");
    let list = list(&mut host, false);
    assert_eq!(ids(&list), [A]);
    assert_eq!(list[0].process.as_ref().map(|process| process.pid), Some(4194303));
    assert_eq!(&*list[0].cgroups[0].path, path);
}

#[test]
fn paused() {
    let mut host = Host::new();
    put(&host, 0, &format!("/docker/{A}"), "4194304\n");
    host.write(&format!("cgroup/unified/docker/{A}/cgroup.events"), "populated 1\nfrozen 1\n");
    put(&host, 0, &format!("/docker/{B}"), "4194304\n");
    host.write(&format!("cgroup/memory/docker/{B}/freezer.state"), "THAWED\n");
    let states: Vec<_> = list(&mut host, false).iter().map(|listed| listed.state).collect();
    assert_eq!(states, [Some(State::Paused), Some(State::Running)]);
    host.write(&format!("cgroup/memory/docker/{B}/freezer.state"), "FROZEN\n");
    let states: Vec<_> = list(&mut host, false).iter().map(|listed| listed.state).collect();
    assert_eq!(states, [Some(State::Paused), Some(State::Paused)]);
}

/// Two runtimes, the same free-text id; and one whose process is gone.
#[test]
fn free_text_counts_by_its_cgroup() {
    let mut host = Host::new();
    let (pid, _) = own_ticks();
    put(&host, 0, "/web", &format!("{pid}\n"));
    put(&host, 0, "/old", "");
    put(&host, 4, "/web", "");
    host.runc("web", "/bundle", 0);
    host.runc("old", "/other", 1);
    let list = list(&mut host, false);
    assert_eq!(ids(&list), ["web"]);
    let listed = &list[0];
    assert_eq!(listed.cgroups.len(), 1, "the state names the cgroup of one hierarchy");
    assert_eq!(listed.container.runtime, Some(Runtime::Runc));
    assert_eq!(listed.process.as_ref().map(|process| process.pid), Some(pid));
    let from_state = |source: &Source| source.fact == "pid" && source.from.ends_with("state.json");
    assert!(listed.sources.iter().any(from_state));
}

/// podman with `--cgroups=disabled`: only the files and the process know.
#[test]
fn a_container_without_a_cgroup() {
    let mut host = Host::new();
    let (pid, _) = own_ticks();
    host.runc("bare", "/bundle", 0);
    let found = list(&mut host, false);
    assert_eq!(ids(&found), ["bare"]);
    assert_eq!(found[0].state, Some(State::Running));
    assert_eq!(found[0].process.as_ref().map(|process| process.pid), Some(pid));
    assert!(found[0].cgroups.is_empty());
}

#[test]
fn what_does_not_run_is_listed_when_asked_for() {
    let mut host = Host::new();
    let state = r#"{"Running":false,"Paused":false,"Restarting":false,"Dead":false,"Pid":0,"StartedAt":"2024-05-05T10:00:00Z"}"#;
    let config =
        format!(r#"{{"ID":"{A}","Name":"/done","Config":{{"Image":"bb"}},"State":{state}}}"#);
    host.write(&format!("docker/containers/{A}/config.v2.json"), &config);
    assert!(list(&mut host, false).is_empty());
    let all = list(&mut host, true);
    assert_eq!(ids(&all), [A]);
    assert_eq!((all[0].state, &all[0].process), (Some(State::Stopped), &None));
}

/// The file is older than the end of its container: dockerd was killed with it.
#[test]
fn a_state_that_says_running_without_a_process_is_old() {
    let mut host = Host::new();
    let state = r#"{"Running":true,"Pid":4194304,"StartedAt":"2024-05-05T10:00:00Z"}"#;
    let config =
        format!(r#"{{"ID":"{A}","Name":"/done","Config":{{"Image":"bb"}},"State":{state}}}"#);
    host.write(&format!("docker/containers/{A}/config.v2.json"), &config);
    assert!(list(&mut host, false).is_empty());
    assert_eq!(list(&mut host, true)[0].state, Some(State::Stopped));
}

/// A container makes a cgroup that is named like another container.
#[test]
fn a_cgroup_named_after_another_container_is_apart() {
    let mut host = Host::new();
    let (pid, _) = own_ticks();
    host.docker(A, "victim");
    host.docker(B, "villain");
    put(&host, 0, &format!("/docker/{A}"), &format!("{pid}\n"));
    put(&host, 0, &format!("/docker/{B}"), "4194303\n");
    put(&host, 0, &format!("/docker/{B}/docker-{A}.scope"), "4194304\n");
    let found = list(&mut host, false);
    assert_eq!(found.len(), 3);
    let of_a: Vec<&Listed> = found.iter().filter(|listed| listed.container.id == A).collect();
    let real = of_a.iter().find(|listed| listed.outer.is_empty()).unwrap();
    assert_eq!(real.process.as_ref().map(|process| process.pid), Some(pid));
    assert_eq!(real.cgroups.len(), 1);
    let fake = of_a.iter().find(|listed| !listed.outer.is_empty()).unwrap();
    assert_eq!(fake.outer[0].id, B);
}

#[test]
fn an_older_process_with_the_pid_is_not_the_containers() {
    let mut host = Host::new();
    put(&host, 0, &format!("/docker/{A}"), "4194304\n");
    let (pid, ticks) = own_ticks();
    let state = format!(
        r#"{{"id":"{A}","init_process_pid":{pid},"init_process_start":{},"cgroup_paths":{{}}}}"#,
        ticks + 1
    );
    host.write(&format!("runc/{A}/state.json"), &state);
    let found = list(&mut host, false);
    assert_eq!(found[0].process.as_ref().map(|process| process.pid), Some(4194304));
}

#[test]
fn only_what_is_wanted() {
    let mut host = Host::new();
    for id in [A, B] {
        put(&host, 0, &format!("/docker/{id}"), "");
    }
    host.attributor.walk(host.now);
    let wanted = |container: &Container| container.id == B;
    let found = host.attributor.inventory(&Ask { wanted: &wanted, all: false, details: false });
    assert_eq!(ids(&found), [B]);
}

#[test]
fn units() {
    let mut host = Host::new();
    put(&host, 0, "/system.slice/ssh.service", "4194304\n4194303\n");
    put(&host, 4, "/system.slice/ssh.service", "4194304\n");
    host.cgroup(0, "/system.slice/ssh.service/inner");
    put(&host, 0, &format!("/system.slice/docker-{A}.scope"), "4194302\n");
    put(&host, 0, "/user.slice/user@0.service/init.scope", "4194301\n");
    host.attributor.walk(host.now);
    let units = host.attributor.units();
    let found: Vec<_> =
        units.iter().map(|u| (u.name.as_str(), u.cgroups.len(), u.processes)).collect();
    let expected = [("ssh.service", 2, 2), ("user@0.service", 1, 1), ("init.scope", 1, 1)];
    assert_eq!(found, expected);
}
