//! runc, crun, LXC, machined and the kubelet.

use super::*;

#[test]
fn runc_and_crun() {
    let root = tempfile::tempdir().unwrap();
    let state = r#"{"id":"r","init_process_pid":9136,"init_process_start":215671,
        "config":{"labels":["bundle=/b"],"cgroups":{"name":"r","path":""}},
        "cgroup_paths":{"":"/sys/fs/cgroup/unified/r","memory":"/sys/fs/cgroup/memory/x/r"}}"#;
    write(root.path(), "runc/r/state.json", state);
    let found = only(root.path(), "r");
    let paths = ["/sys/fs/cgroup/unified/r", "/sys/fs/cgroup/memory/x/r"].map(PathBuf::from);
    assert_eq!(found.placement, Placement::Mounted(paths.into()));
    assert_eq!(found.init, Some(Init { pid: 9136, start_ticks: Some(215671) }));
    assert_eq!(found.bundle, Some("/b".into()));
    assert_eq!(found.container.runtime, Some(Runtime::Runc));

    let status = r#"{"pid":139179,"process-start-time":263473330,"cgroup-path":"/c","scope":"",
        "rootfs":"rootfs","systemd-cgroup":false,"bundle":"/b","owner":"root","detached":true,
        "external_descriptors":"[\"/dev/null\"]"}"#;
    write(root.path(), "crun/c/status", status);
    let found = only(root.path(), "c");
    assert_eq!(found.placement, Placement::InHierarchies("/c".into()));
    assert_eq!(found.init, Some(Init { pid: 139179, start_ticks: Some(263473330) }));
    assert_eq!(found.container.runtime, Some(Runtime::Crun));
    write(root.path(), "crun/c/status", &status.replace("/c", "a/c"));
    assert_eq!(only(root.path(), "c").placement, Placement::InHierarchies("/a/c".into()));
}

#[test]
fn roots_with_a_directory_per_namespace() {
    let root = tempfile::tempdir().unwrap();
    let state = r#"{"id":"{A}","init_process_pid":1,"init_process_start":2}"#;
    write(root.path(), "namespaced/moby/{A}/state.json", state);
    assert_eq!(only(root.path(), A).container.runtime, Some(Runtime::Docker));
    let status = r#"{"pid":1,"process-start-time":2,"cgroup-path":""}"#;
    write(root.path(), "namespaced/default/web/status", status);
    let found = only(root.path(), "web");
    assert_eq!(found.container.runtime, Some(Runtime::Containerd));
    assert_eq!(found.placement, Placement::Unsaid);
    // Without namespaces, `moby` is a word.
    write(root.path(), "crun/moby/status", status);
    assert_eq!(only(root.path(), "moby").container.runtime, Some(Runtime::Crun));
}

#[test]
fn lxc() {
    let root = tempfile::tempdir().unwrap();
    let of = |config: &str| {
        write(root.path(), "lxc/web/config", config);
        only(root.path(), "web")
    };
    let found = of("# Template\nlxc.include = /usr/share/lxc/config/common.conf\n\
                    lxc.arch = linux64\nlxc.rootfs.path = dir:/var/lib/lxc/web/rootfs\n\
                    lxc.uts.name = host\nlxc.cgroup2.memory.max = 1G\n");
    // The host's name in it is not its name.
    assert_eq!(found.container.name.as_deref(), Some("web"));
    assert_eq!(found.container.runtime, Some(Runtime::Lxc));
    assert_eq!(found.placement, Placement::InHierarchies("/lxc.payload.web".into()));
    let placement = |config: &str| of(config).placement;
    let at = |path: &str| Placement::InHierarchies(path.into());
    assert_eq!(placement("lxc.cgroup.dir=batch/x"), at("/batch/x/lxc.payload.web"));
    let split = "lxc.cgroup.dir.monitor = m\nlxc.cgroup.dir.container = c/web\n";
    assert_eq!(placement(split), at("/c/web"));
    assert_eq!(placement("lxc.cgroup.dir.container = ../../x"), Placement::Unsaid);
    assert_eq!(placement("lxc.cgroup.dir.container = /"), Placement::Unsaid);
}

#[test]
fn machined() {
    let root = tempfile::tempdir().unwrap();
    let machine = |name: &str, content: &str| {
        write(root.path(), &format!("machines/{name}"), content);
    };
    machine(
        "my-box",
        "# This is private data. Do not parse.\nNAME=my-box\nSCOPE=machine-my\\\\x2dbox.scope\n\
         SERVICE=systemd-nspawn\nROOT=/var/lib/machines/my-box\nLEADER=4711\nCLASS=container\n",
    );
    let Metadata { container, placement, init, .. } = only(root.path(), "my-box");
    assert_eq!(container.name.as_deref(), Some("my-box"));
    assert_eq!(container.runtime, Some(Runtime::Nspawn));
    let scope = r"/machine.slice/machine-my\x2dbox.scope";
    assert_eq!(placement, Placement::InHierarchies(scope.into()));
    assert_eq!(init, Some(Init { pid: 4711, start_ticks: None }));

    machine("vm", "NAME=vm\nSERVICE=libvirt-qemu\nLEADER=1\nCLASS=vm\n");
    machine("nothing", "");
    assert_eq!((look_up(root.path(), "vm"), look_up(root.path(), "nothing")), (vec![], vec![]));
    machine("libvirts", "NAME=libvirts\nSERVICE=libvirt-lxc\nCLASS=container\nSCOPE=\"x.scope\"\n");
    let found = only(root.path(), "libvirts");
    assert_eq!((found.container.runtime, found.init), (None, None));
    assert_eq!(found.placement, Placement::InHierarchies("/machine.slice/x.scope".into()));
    machine("hostile", "CLASS=container\nSCOPE=../../x.scope\nLEADER=-1\n");
    let found = only(root.path(), "hostile");
    assert_eq!((found.placement, found.init), (Placement::Unsaid, None));
    machine("other", "CLASS=container\nNAME=my-box\n");
    assert_eq!(look_up(root.path(), "other"), []);
    std::os::unix::fs::symlink("my-box", root.path().join("machines/unit:x.scope")).unwrap();
    assert_eq!(look_up(root.path(), "unit:x.scope"), []);
}

#[test]
fn logs_of_the_kubelet() {
    let root = tempfile::tempdir().unwrap();
    let logs = root.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let link = |name: &str| {
        std::os::unix::fs::symlink("/var/log/pods/gone", logs.join(name)).unwrap();
    };
    link(&format!("web-0_prod_side-car-{A}.log"));
    let container = only(root.path(), A).container;
    assert_eq!((container.name.as_deref(), container.runtime), (Some("side-car"), None));
    let pod = container.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("prod")));
    assert_eq!(pod.uid, None);
    for other in [
        format!("web-0_prod_{B}.log"),
        format!("web-0_prod_a_b-{B}.log"),
        format!("_prod_web-{B}.log"),
        format!("web-0_prod_web-{B}.log.1"),
        format!("web-0_prod_web-{}.log", &B[1..]),
    ] {
        link(&other);
    }
    assert_eq!(look_up(root.path(), B), []);
    // A part of an id is not an id.
    assert_eq!(look_up(root.path(), &A[1..]), []);
}
