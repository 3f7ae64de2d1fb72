//! What users write about containers of their own.

use std::os::unix::fs::chown;

use super::*;

const USER: u32 = 65_534;
/// A bundle of the user's.
const BUNDLE: &str = "users/containerd/io.containerd.runtime.v2.task/ns/true";

/// A host that also looks into a user's directories; `None` where this process may give no files away.
fn host() -> Option<Host> {
    let mut host = Host::new();
    let at = |name: &str| host.root.path().join(name);
    let users = Roots {
        crun: vec![at("users/crun")],
        containerd: vec![at("users/containerd")],
        podman: vec![at("users/storage")],
        ..Roots::default()
    };
    let roots = Roots {
        crun: vec![at("crun")],
        runc: vec![at("runc")],
        containerd: vec![at("containerd")],
        users: Some(Box::new(users)),
        ..Roots::default()
    };
    host.attributor.catalog.set_roots(roots, &*host.attributor.cgroups);
    if let Err(error) = chown(at("cgroup"), Some(USER), None) {
        println!("skipped: cannot give files to another user: {error}");
        return None;
    }
    chown(at("cgroup"), Some(0), None).unwrap();
    Some(host)
}

fn give(host: &Host, path: &str, user: u32) {
    chown(host.root.path().join(path), Some(user), None).unwrap();
}

/// crun's state of a container that says that `cgroup` is its own, written by `user`.
fn crun(host: &Host, path: &str, cgroup: &str, user: u32) {
    let own = procfs::process::Process::myself().unwrap().stat().unwrap();
    let status = format!(
        r#"{{"pid":{},"process-start-time":{},"cgroup-path":"{cgroup}","bundle":"{}"}}"#,
        own.pid,
        own.starttime,
        host.root.path().join(BUNDLE).display()
    );
    host.write(path, &status);
    give(host, path, user);
}

#[test]
fn a_user_claims_the_cgroups_that_are_his() {
    let Some(mut host) = host() else { return };
    let (roots, his) = (host.cgroup(0, "/backup"), host.cgroup(0, "/session"));
    let other = host.cgroup(0, "/nightly");
    give(&host, "cgroup/unified/session", USER);
    crun(&host, "users/crun/evil/status", "/backup", USER);
    crun(&host, "users/crun/box/status", "/session", USER);
    // Root wrote it, but a user may have put it there.
    crun(&host, "users/crun/moved/status", "/nightly", 0);
    host.attributor.on_readable();
    assert_eq!(host.resolve(&[roots]).container, None);
    assert_eq!(host.resolve(&[other]).container, None);
    assert_eq!(id(&host.resolve(&[his])), Some("box"));
}

#[test]
fn a_users_file_in_a_directory_of_roots_is_a_users() {
    let Some(mut host) = host() else { return };
    let (roots, his) = (host.cgroup(0, "/backup"), host.cgroup(0, "/session"));
    give(&host, "cgroup/unified/session", USER);
    crun(&host, "crun/evil/status", "/backup", USER);
    crun(&host, "crun/box/status", "/session", USER);
    host.attributor.on_readable();
    assert_eq!(host.resolve(&[roots]).container, None);
    assert_eq!(id(&host.resolve(&[his])), Some("box"));
}

#[test]
fn a_users_claim_does_not_undo_roots() {
    let Some(mut host) = host() else { return };
    let key = host.cgroup(0, "/session");
    give(&host, "cgroup/unified/session", USER);
    crun(&host, "crun/true/status", "/session", 0);
    crun(&host, "users/crun/fake/status", "/session", USER);
    // The same id and bundle, and a name.
    let path = format!("{BUNDLE}/config.json");
    host.write(&path, r#"{"annotations":{"nerdctl/name":"fake"}}"#);
    give(&host, &path, USER);
    let status = "users/crun/true/status";
    crun(&host, status, "/session", USER);
    host.attributor.on_readable();
    let found = host.resolve(&[key]);
    assert_eq!((id(&found), name(&found)), (Some("true"), None));
}

#[test]
fn a_users_name_is_not_put_on_what_root_knows_by_its_id() {
    let Some(mut host) = host() else { return };
    host.runc(A, "/b", 0);
    let list = "users/storage/overlay-containers/containers.json";
    host.write(list, &format!(r#"[{{"id":"{A}","names":["fake"]}},{{"id":"{B}","names":["b"]}}]"#));
    give(&host, list, USER);
    host.attributor.on_readable();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    assert_eq!(name(&host.resolve(&[key])), None);
    let told = Container { id: A.into(), name: Some("true".into()), ..Container::default() };
    host.attributor.tell(told);
    assert_eq!(name(&host.resolve(&[key])), Some("true"));
    // Where root knows nothing, the user's word is all there is; until a runtime says otherwise.
    let key = host.learn(0, 2000, &format!("/docker/{B}"));
    assert_eq!(name(&host.resolve(&[key])), Some("b"));
    host.attributor.tell(Container { id: B.into(), ..Container::default() });
    assert_eq!(name(&host.resolve(&[key])), None);
}

#[test]
fn a_users_cgroup_with_the_name_of_roots_container_is_his() {
    let mut host = Host::new();
    host.docker(A, "web");
    host.attributor.on_readable();
    let manager = format!("/user.slice/user-{USER}.slice/user@{USER}.service");
    let fake = host.learn(0, 1000, &format!("{manager}/docker-{A}.scope"));
    let found = host.resolve(&[fake]);
    assert_eq!((id(&found), found.via), (None, Via::Unit));
    // A container of his that nobody else knows.
    let own = host.learn(0, 2000, &format!("{manager}/app.slice/docker-{B}.scope"));
    assert_eq!(id(&host.resolve(&[own])), Some(B));
}

#[test]
fn a_bundle_that_outlived_its_task_claims_nothing() {
    let mut host = Host::new();
    let bundle = |id: &str| format!("containerd/io.containerd.runtime.v2.task/ns/{id}");
    let keys = ["old", "new", "begun"].map(|id| {
        let config = format!(r#"{{"linux":{{"cgroupsPath":"/ns-{id}"}}}}"#);
        host.write(&format!("{}/config.json", bundle(id)), &config);
        host.cgroup(0, &format!("/ns-{id}"))
    });
    host.write(&format!("{}/init.pid", bundle("old")), &u32::MAX.to_string());
    host.write(&format!("{}/init.pid", bundle("new")), &std::process::id().to_string());
    host.attributor.on_readable();
    let found = keys.map(|key| id(&host.resolve(&[key])).map(str::to_owned));
    assert_eq!(found, [None, Some("new".into()), Some("begun".into())]);
}
