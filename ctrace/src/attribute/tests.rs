use std::fs;

use super::*;
use crate::event::Runtime;

mod lifecycle;
mod processes;
mod users;

pub(crate) const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";
pub(crate) const B: &str = "eeb616351073049baabdcf877af9928fc984fc5155f5177012221b650a672b12";

const MS: u64 = 1_000_000;
/// The host's mount namespace.
const HOST_NS: u32 = 40;

/// A host in a temporary directory: plain directories stand for cgroups, inodes for their ids.
pub(crate) struct Host {
    pub(crate) root: tempfile::TempDir,
    pub(crate) attributor: Attributor,
    pub(crate) now: u64,
}

struct FakeCgroups(Vec<(u32, PathBuf)>);

impl CgroupFs for FakeCgroups {
    fn path_of_id(&self, hierarchy: u32, id: u64) -> Option<String> {
        let mount = &self.0.iter().find(|mount| mount.0 == hierarchy)?.1;
        let mut left = vec![mount.clone()];
        while let Some(directory) = left.pop() {
            if directory.metadata().is_ok_and(|metadata| metadata.ino() == id) {
                return Some(format!("/{}", directory.strip_prefix(mount).ok()?.to_str()?));
            }
            left.extend(runtime::subdirectories(&directory));
        }
        None
    }

    fn mounts(&self) -> Vec<(u32, PathBuf)> {
        self.0.clone()
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(tempfile::tempdir().unwrap())
    }

    fn with(root: tempfile::TempDir) -> Self {
        let at = |name: &str| root.path().join(name);
        let mounts = vec![(0, at("cgroup/unified")), (4, at("cgroup/memory"))];
        for (_, mount) in &mounts {
            fs::create_dir_all(mount).unwrap();
        }
        let roots = Roots {
            docker: vec![at("docker")],
            containerd: vec![at("containerd")],
            podman: vec![at("storage")],
            runc: vec![at("runc")],
            crun: vec![at("crun")],
            namespaced: vec![at("containerd/runc")],
            lxc: vec![at("lxc")],
            machined: vec![at("machines")],
            kubernetes: vec![at("logs")],
            ..Roots::default()
        };
        let attributor = Attributor::with_roots(FakeCgroups(mounts), HOST_NS, &roots);
        Self { root, attributor, now: 1_000 * MS }
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn docker(&self, id: &str, name: &str) {
        let config = format!(r#"{{"ID":"{id}","Name":"/{name}","Config":{{"Image":"bb"}}}}"#);
        self.write(&format!("docker/containers/{id}/config.v2.json"), &config);
    }

    /// A runc container whose init is this process.
    pub(crate) fn runc(&self, id: &str, bundle: &str, start_offset: u64) {
        let own = procfs::process::Process::myself().unwrap().stat().unwrap();
        let state = format!(
            r#"{{"id":"{id}","init_process_pid":{},"init_process_start":{},
               "config":{{"labels":["bundle={bundle}"]}},"cgroup_paths":{{"":"{}"}}}}"#,
            own.pid,
            own.starttime + start_offset,
            self.root.path().join("cgroup/unified").join(id).display(),
        );
        self.write(&format!("runc/{id}/state.json"), &state);
    }

    /// Makes a cgroup.
    pub(crate) fn cgroup(&self, hierarchy: u32, path: &str) -> CgroupKey {
        let mount = if hierarchy == 0 { "cgroup/unified" } else { "cgroup/memory" };
        let directory = self.root.path().join(mount).join(path.trim_start_matches('/'));
        fs::create_dir_all(&directory).unwrap();
        CgroupKey { hierarchy, id: directory.metadata().unwrap().ino() }
    }

    /// Teaches a path as the kernel side does, with ids that are in no file system.
    fn learn(&mut self, hierarchy: u32, id: u64, path: &str) -> CgroupKey {
        let names: Vec<&[u8]> = cgroup::components(path).map(str::as_bytes).collect();
        let ids: Vec<u64> = (0..names.len() as u64).map(|level| id + level).collect();
        self.attributor.learn(hierarchy, &ids, names.into_iter().rev(), false);
        CgroupKey { hierarchy, id }
    }

    /// Of a process of which only the cgroups are known.
    fn resolve(&mut self, keys: &[CgroupKey]) -> Attribution {
        let mut keys = keys.iter().copied();
        let who = Identity { owner: keys.next(), v1: keys.next(), ..Identity::default() };
        self.whose(&who, Kinship::default())
    }

    /// What is recalled is what was resolved.
    fn whose(&mut self, who: &Identity, kin: Kinship) -> Attribution {
        if let Some(known) = self.attributor.recall(who, self.now) {
            return (*known).clone();
        }
        let found = self.attributor.resolve(who, kin, self.now);
        if let Some(known) = self.attributor.recall(who, self.now) {
            assert_eq!(known, found);
        }
        (*found).clone()
    }
}

fn id(attribution: &Attribution) -> Option<&str> {
    attribution.container.as_ref().map(|container| container.id.as_str())
}

fn name(attribution: &Attribution) -> Option<&str> {
    attribution.container.as_ref()?.name.as_deref()
}

#[test]
fn a_container_that_was_there_before() {
    let host = Host::new();
    host.docker(A, "batch");
    let mut host = Host::with(host.root);
    let key = host.learn(0, 1000, &format!("/docker/{A}/app"));
    let found = host.resolve(&[key]);
    assert_eq!((name(&found), found.via), (Some("batch"), Via::Cgroup));
    assert_eq!(found.path, Some((key, format!("/docker/{A}/app").into())));
    assert!(host.attributor.known("batch", 0) && host.attributor.known(&A[..12], 0));
    assert!(!host.attributor.known("bat", 0) && !host.attributor.known(&B[..12], 0));
    host.cgroup(4, &format!("/docker/{B}"));
    assert!(host.attributor.known(&B[..12], 0), "no file knows it, its cgroup does");
}

/// `docker run --rm`: written, watched, unlinked, and only then is the event drained.
#[test]
fn a_container_that_is_gone_before_its_event_is_drained() {
    let mut host = Host::new();
    host.docker(A, "brief");
    host.attributor.on_readable();
    fs::remove_dir_all(host.root.path().join("docker")).unwrap();
    host.attributor.on_readable();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    let found = host.resolve(&[key]);
    assert_eq!((name(&found), found.via), (Some("brief"), Via::Cgroup));
}

#[test]
fn a_container_without_metadata_is_partial_until_there_is_some() {
    let mut host = Host::new();
    let key = host.learn(0, 1000, &format!("/docker/{A}"));
    let found = host.resolve(&[key]);
    assert_eq!((id(&found), name(&found), found.via), (Some(A), None, Via::CgroupPath));
    assert_eq!(found.container.unwrap().runtime, Some(Runtime::Docker));
    // Not for each event: the disk is left alone for a while.
    host.docker(A, "late");
    assert_eq!(name(&host.resolve(&[key])), None);
    host.now += 150 * MS;
    assert_eq!(name(&host.resolve(&[key])), Some("late"));
    // What inotify brings needs no waiting: a rename.
    host.docker(A, "renamed");
    host.attributor.on_readable();
    assert_eq!(name(&host.resolve(&[key])), Some("renamed"));
}

#[test]
fn bare_digits_are_whose_metadata_says() {
    let mut host = Host::new();
    let podman = format!(r#"[{{"id":"{B}","names":["p"]}}]"#);
    host.write("storage/overlay-containers/containers.json", &podman);
    host.attributor.on_readable();
    let (known, unknown) =
        (host.learn(0, 1000, &format!("/batch/{B}")), host.learn(0, 2000, &format!("/batch/{A}")));
    let found = host.resolve(&[known]).container.unwrap();
    assert_eq!((found.name.as_deref(), found.runtime), (Some("p"), Some(Runtime::Podman)));
    let found = host.resolve(&[unknown]);
    assert_eq!((id(&found), found.via), (Some(A), Via::CgroupPath));
    assert_eq!(found.container.unwrap().runtime, None);
    // A container can name its cgroups as it likes.
    let inside = host.learn(0, 3000, &format!("/docker/{B}/{A}"));
    assert_eq!(id(&host.resolve(&[inside])), Some(B));
}

#[test]
fn a_pod_of_podmans_is_no_container() {
    let mut host = Host::new();
    let found = host.learn(0, 1000, &format!("/batch/{A}/libpod-{B}"));
    let found = host.resolve(&[found]);
    assert_eq!((id(&found), found.outer.len()), (Some(B), 0));
    // A container that runs podman is one, and cannot hide behind the name of a cgroup.
    host.docker(A, "outer");
    host.attributor.on_readable();
    let key = host.learn(0, 3000, &format!("/batch/{A}/libpod-{B}"));
    assert_eq!(host.resolve(&[key]).outer[0].name.as_deref(), Some("outer"));
}

#[test]
fn containers_in_containers() {
    let mut host = Host::new();
    host.docker(A, "outer");
    host.attributor.on_readable();
    let key = host.learn(0, 1000, &format!("/docker/{A}/docker/{B}"));
    let found = host.resolve(&[key]);
    assert_eq!((id(&found), found.via), (Some(B), Via::CgroupPath));
    assert_eq!(found.outer[0].name.as_deref(), Some("outer"));
}

#[test]
fn free_text_is_claimed_by_identity_alone() {
    let mut host = Host::new();
    let web = host.cgroup(0, "/web");
    let inside = host.cgroup(0, "/web/worker");
    // The same path in another hierarchy is not in the state.
    let elsewhere = host.cgroup(4, "/web");
    host.runc("web", "/b", 0);
    let found = host.resolve(&[inside]);
    assert_eq!((id(&found), found.via), (Some("web"), Via::Cgroup));
    assert_eq!(found.container.unwrap().runtime, Some(Runtime::Runc));
    assert_eq!(id(&host.resolve(&[elsewhere])), None);
    assert_eq!(host.resolve(&[elsewhere]).via, Via::Unknown);
    // It is gone, and somebody makes a cgroup of that name: late events stay, new ones do not.
    fs::remove_dir_all(host.root.path().join("runc/web")).unwrap();
    let other = host.learn(0, 77_000_000_000, "/web");
    assert_eq!(id(&host.resolve(&[other])), None);
    assert_eq!(id(&host.resolve(&[web])), Some("web"));
}

#[test]
fn a_state_that_outlived_its_container_claims_nothing() {
    let mut host = Host::new();
    let web = host.cgroup(0, "/web");
    host.runc("web", "/b", 1);
    let found = host.resolve(&[web]);
    assert_eq!((id(&found), found.via), (None, Via::Unknown));
}

#[test]
fn a_cgroup_of_two_containers_is_neithers() {
    let mut host = Host::new();
    let shared = host.cgroup(0, "/shared");
    for id in ["one", "two"] {
        host.runc(id, id, 0);
        let state = host.root.path().join(format!("runc/{id}/state.json"));
        let text = fs::read_to_string(&state).unwrap();
        fs::write(&state, text.replace(&format!("unified/{id}"), "unified/shared")).unwrap();
    }
    host.attributor.on_readable();
    assert_eq!(id(&host.resolve(&[shared])), None);
}

/// The table of claims is bounded; a cgroup that lives on stays its container's.
#[test]
fn a_claim_that_was_forgotten_is_still_known_to_its_cgroup() {
    let mut host = Host::new();
    let web = host.cgroup(0, "/web");
    host.runc("web", "/b", 0);
    assert_eq!(id(&host.resolve(&[web])), Some("web"));
    host.attributor.catalog.staged = staged::Staged::new();
    host.docker(A, "other");
    host.attributor.on_readable();
    assert_eq!(id(&host.resolve(&[web])), Some("web"));
}

#[test]
fn the_engine_knows_more_than_its_runc() {
    let mut host = Host::new();
    let bundle = "containerd/io.containerd.runtime.v2.task/default/db";
    let annotations = r#"{"annotations":{"nerdctl/name":"db-of-user"}}"#;
    host.write(&format!("{bundle}/config.json"), annotations);
    let db = host.cgroup(0, "/db");
    host.runc("db", host.root.path().join(bundle).to_str().unwrap(), 0);
    let found = host.resolve(&[db]);
    assert_eq!((id(&found), name(&found)), (Some("db"), Some("db-of-user")));
}

#[test]
fn the_same_number_in_two_hierarchies() {
    let mut host = Host::new();
    let v2 = host.learn(0, 1000, "/system.slice/ssh.service");
    let v1 = host.learn(4, 1000, &format!("/docker/{A}"));
    assert_eq!(id(&host.resolve(&[v2])), None);
    // A container beats a unit, whichever comes first.
    assert_eq!(id(&host.resolve(&[v2, v1])), Some(A));
    assert_eq!(id(&host.resolve(&[v1, v2])), Some(A));
}

#[test]
fn of_two_containers_the_inner_or_the_first() {
    let mut host = Host::new();
    let outer = host.learn(0, 1000, &format!("/docker/{A}"));
    let inner = host.learn(4, 2000, &format!("/docker/{A}/docker/{B}"));
    let other = host.learn(4, 3000, &format!("/docker/{B}"));
    assert_eq!(id(&host.resolve(&[outer, inner])), Some(B));
    assert_eq!(id(&host.resolve(&[inner, outer])), Some(B));
    assert_eq!(id(&host.resolve(&[outer, other])), Some(A));
}

#[test]
fn what_is_no_container() {
    let mut host = Host::new();
    let mut numbers = 1000;
    let mut via = |host: &mut Host, path: &str| {
        numbers += 100;
        let key = host.learn(0, numbers, path);
        let found = host.resolve(&[key]);
        assert_eq!(found.container, None, "{path}");
        (found.via, found.unit.map(|unit| unit.to_string()))
    };
    let ssh = Some("ssh.service".to_owned());
    assert_eq!(via(&mut host, "/system.slice/ssh.service"), (Via::Unit, ssh));
    assert_eq!(via(&mut host, "/system.slice"), (Via::Host, None));
    assert_eq!(via(&mut host, "/libpod_parent/conmon"), (Via::RuntimeHelper, None));
    let supervisor = via(&mut host, "/machine.slice/machine-a.scope/supervisor");
    assert_eq!(supervisor.0, Via::RuntimeHelper);
    assert_eq!(via(&mut host, "/whose/is/this"), (Via::Unknown, None));
    let root = host.cgroup(0, "/");
    assert_eq!(host.resolve(&[root]).via, Via::Host);
    let gone = CgroupKey { hierarchy: 0, id: 5 };
    assert_eq!(host.resolve(&[gone]), Attribution::default());
    assert_eq!(host.resolve(&[]), Attribution::default());
    // One cgroup that is not known is enough not to say "host".
    assert_eq!(host.resolve(&[root, gone]).via, Via::Unknown);
    let conmon = host.learn(4, 9000, "/libpod_parent/conmon");
    assert_eq!(host.resolve(&[root, conmon]).via, Via::RuntimeHelper);
}

#[test]
fn a_path_without_its_root_says_what_it_holds() {
    let mut host = Host::new();
    let names = [A.as_bytes(), b"docker"];
    host.attributor.learn(0, &[1000, 1001], names, true);
    let key = CgroupKey { hierarchy: 0, id: 1000 };
    let found = host.resolve(&[key]);
    assert_eq!(id(&found), Some(A));
    assert_eq!(found.path, None);
    host.attributor.learn(0, &[2000], [&b"x.slice"[..]], true);
    assert_eq!(host.resolve(&[CgroupKey { hierarchy: 0, id: 2000 }]).via, Via::Unknown);
}

#[test]
fn lxc_and_machines_are_claimed_once() {
    let mut host = Host::new();
    let web = host.cgroup(0, "/batch/lxc.payload.web/init.scope");
    host.write("lxc/web/config", "lxc.cgroup.dir = batch\n");
    let unit = "/machine.slice/machine-box.scope";
    let payload = host.cgroup(0, &format!("{unit}/payload"));
    let supervisor = host.cgroup(0, &format!("{unit}/supervisor"));
    let leader = std::process::id();
    let machine = format!(
        "NAME=box\nSCOPE=machine-box.scope\nSERVICE=systemd-nspawn\nLEADER={leader}\nCLASS=container\n"
    );
    host.write("machines/box", &machine);
    host.attributor.on_readable();
    for (key, expected) in [(web, ("web", Runtime::Lxc)), (payload, ("box", Runtime::Nspawn))] {
        let found = host.resolve(&[key]);
        assert_eq!((id(&found), found.via), (Some(expected.0), Via::Cgroup));
        assert_eq!((name(&found), found.outer.len()), (Some(expected.0), 0));
        assert_eq!(found.container.unwrap().runtime, Some(expected.1));
    }
    let found = host.resolve(&[supervisor]);
    assert_eq!((id(&found), found.via), (None, Via::RuntimeHelper));
}

#[test]
fn a_bundle_of_cri_o_and_a_log_of_the_kubelet_are_seen_when_they_come() {
    let mut host = Host::new();
    let cri_o = host.learn(0, 1000, &format!("/kubepods.slice/crio-{A}.scope"));
    let other = host.learn(0, 2000, &format!("/kubepods.slice/cri-containerd-{B}.scope"));
    assert_eq!((name(&host.resolve(&[cri_o])), name(&host.resolve(&[other]))), (None, None));
    let annotations = r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"sandbox",
        "io.container.manager":"cri-o","io.kubernetes.cri-o.KubeName":"web-0"}}"#;
    host.write(&format!("storage/overlay-containers/{A}/userdata/config.json"), annotations);
    fs::create_dir(host.root.path().join("logs")).unwrap();
    let log = host.root.path().join(format!("logs/web-0_prod_web-{B}.log"));
    std::os::unix::fs::symlink("/var/log/pods/gone", log).unwrap();
    host.attributor.on_readable();
    let pause = host.resolve(&[cri_o]).container.unwrap();
    assert_eq!((pause.is_sandbox, pause.label()), (true, "pause of pod web-0".to_owned()));
    let web = host.resolve(&[other]);
    assert_eq!((name(&web), web.via), (Some("web"), Via::Cgroup));
    assert_eq!(web.container.unwrap().runtime, Some(Runtime::Containerd));
}

#[test]
fn a_pods_uid_is_in_the_path() {
    let mut host = Host::new();
    let uid = "0f1c2d3e-4a5b-4c6d-8e9f-001122334455";
    let key = host.learn(0, 1000, &format!("/kubepods/burstable/pod{uid}/{A}"));
    let pod = host.resolve(&[key]).container.unwrap().pod.clone().unwrap();
    assert_eq!(pod.uid.as_deref(), Some(uid));
}
