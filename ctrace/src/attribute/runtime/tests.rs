use std::fs;

use proptest::prelude::*;

use super::*;

const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";
const B: &str = "eeb616351073049baabdcf877af9928fc984fc5155f5177012221b650a672b12";

/// Roots of every runtime below `directory`.
fn roots(directory: &Path) -> roots::Roots {
    let at = |name: &str| vec![directory.join(name)];
    roots::Roots {
        docker: at("docker"),
        containerd: at("containerd"),
        podman: at("storage"),
        runc: at("runc"),
        crun: at("crun"),
    }
}

fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path.replace("{A}", A));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content.replace("{A}", A).replace("{B}", B)).unwrap();
}

fn look_up(root: &Path, id: &str) -> Vec<Metadata> {
    let mut all = Vec::new();
    for backend in backends(&roots(root)) {
        if let Lookup::Found(found) = lookup(&*backend, id) {
            all.extend(found);
        }
    }
    all
}

/// The only answer about `id`.
fn only(root: &Path, id: &str) -> Metadata {
    let mut all = look_up(root, id);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn docker() {
    let root = tempfile::tempdir().unwrap();
    let config = r#"{"StreamConfig":{},"State":{"Running":true,"Pid":8976},"ID":"{A}",
        "Config":{"Hostname":"b97","Env":null,"Image":"bb:latest","Labels":{"team":"x"}},
        "Image":"sha256:5da4","Name":"/batch","Driver":"vfs"}"#;
    write(root.path(), "docker/containers/{A}/config.v2.json", config);
    let container = only(root.path(), A).container;
    assert_eq!(container.name.as_deref(), Some("batch"));
    assert_eq!(container.image.as_deref(), Some("bb:latest"));
    assert_eq!(container.runtime, Some(Runtime::Docker));
    assert_eq!(container.labels["team"], "x");
}

#[test]
fn containerd_cri_and_docker() {
    let root = tempfile::tempdir().unwrap();
    let tasks = "containerd/io.containerd.runtime.v2.task";
    let cri = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.container-name":"web",
        "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"nginx:1",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod",
        "io.kubernetes.cri.sandbox-uid":"u"},"linux":{"cgroupsPath":"a.slice:cri-containerd:{A}"}}"#;
    write(root.path(), &format!("{tasks}/k8s.io/{{A}}/config.json"), cri);
    let found = only(root.path(), A);
    assert_eq!(found.container.name.as_deref(), Some("web"));
    assert_eq!(found.container.runtime, Some(Runtime::Containerd));
    assert_eq!(found.placement, Placement::Unsaid);
    let pod = found.container.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("prod")));

    let plain = r#"{"ociVersion":"1.0.2-dev","linux":{"cgroupsPath":"/docker/{B}"}}"#;
    write(root.path(), &format!("{tasks}/moby/{B}/config.json"), plain);
    let found = only(root.path(), B);
    assert_eq!(found.container.runtime, Some(Runtime::Docker));
    assert_eq!(found.container.name, None);

    let nerdctl = r#"{"annotations":{"nerdctl/name":"db","nerdctl/namespace":"default"}}"#;
    write(root.path(), &format!("{tasks}/default/db1/config.json"), nerdctl);
    let container = only(root.path(), "db1").container;
    assert_eq!(container.runtime, Some(Runtime::Nerdctl));
    assert_eq!(container.name.as_deref(), Some("db"));
    // Deleted, but not yet unlinked.
    write(root.path(), &format!("{tasks}/default/.gone/config.json"), "{}");
    assert_eq!(look_up(root.path(), ".gone"), []);
}

#[test]
fn podman_and_cri_o() {
    let root = tempfile::tempdir().unwrap();
    let podman = r#"[{"id":"{A}","names":["p"],"image":"6afa","layer":"7d56","flags":{},
        "metadata":"{\"image-name\":\"localhost/bb:latest\",\"name\":\"p\",\"created-at\":1}"}]"#;
    write(root.path(), "storage/overlay-containers/containers.json", podman);
    let container = only(root.path(), A).container;
    assert_eq!(container.name.as_deref(), Some("p"));
    assert_eq!(container.image.as_deref(), Some("localhost/bb:latest"));
    assert_eq!(container.runtime, Some(Runtime::Podman));

    let cri_o = r#"[{"id":"{B}","names":["k8s_web_web-0_prod_u_0"],"metadata":
        "{\"pod-name\":\"n\",\"pod-id\":\"x\",\"metadata-name\":\"web\",\"image-name\":\"i\"}"}]"#;
    write(root.path(), "storage/vfs-containers/volatile-containers.json", cri_o);
    let container = only(root.path(), B).container;
    assert_eq!(container.runtime, Some(Runtime::CriO));
    assert_eq!(container.name.as_deref(), Some("web"));
    assert_eq!(container.pod.unwrap().name.as_deref(), Some("web-0"));
    assert_eq!(look_up(root.path(), "p"), []);
}

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
    assert_eq!((found.init, found.bundle), (Some((9136, 215671)), Some("/b".into())));

    let status = r#"{"pid":139179,"process-start-time":263473330,"cgroup-path":"/c","scope":"",
        "rootfs":"rootfs","systemd-cgroup":false,"bundle":"/b","owner":"root","detached":true,
        "external_descriptors":"[\"/dev/null\"]"}"#;
    write(root.path(), "crun/c/status", status);
    let found = only(root.path(), "c");
    assert_eq!(found.placement, Placement::InHierarchies("/c".into()));
    assert_eq!(found.container.runtime, Some(Runtime::Crun));
}

#[test]
fn another_containers_file_is_refused() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "docker/containers/{A}/config.v2.json", r#"{"ID":"{B}","Name":"/x"}"#);
    assert_eq!(look_up(root.path(), A), []);
}

#[test]
fn ids_do_not_leave_the_root() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "state.json", "{}");
    for id in ["", ".", "..", "../runc", "a/b", "a\0b", &"x".repeat(256)] {
        assert_eq!(look_up(root.path(), id), [], "{id:?}");
    }
}

#[test]
fn what_is_no_plain_file_is_unreadable() {
    let root = tempfile::tempdir().unwrap();
    let docker = docker::Docker::new(&[root.path().join("docker")]);
    let directory = root.path().join("docker/containers").join(A);
    let file = directory.join("config.v2.json");
    fs::create_dir_all(&directory).unwrap();
    assert_eq!(lookup(&docker, A), Lookup::Unknown);
    let is_unreadable = || matches!(lookup(&docker, A), Lookup::Unreadable(_));

    rustix::fs::mknodat(
        rustix::fs::CWD,
        &file,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(is_unreadable(), "a FIFO");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert!(is_unreadable(), "a link");
    fs::remove_file(&file).unwrap();
    fs::File::create(&file).unwrap().set_len(file::MAX_BYTES + 1).unwrap();
    assert!(is_unreadable(), "a file without end");
    fs::write(&file, "{\"ID\":").unwrap();
    assert!(is_unreadable(), "half a file");
}

/// JSON of the shapes that the backends know, with anything in the place of the values.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("-1e999".to_owned()),
        Just("[[],{}]".to_owned()),
        Just("{\"\":null}".to_owned()),
        "\"[/._ a-z\u{0}-\u{1f}é]{0,8}\"",
    ];
    let key = prop_oneof![
        Just("ID"),
        Just("id"),
        Just("Name"),
        Just("Config"),
        Just("names"),
        Just("metadata"),
        Just("annotations"),
        Just("linux"),
        Just("init_process_pid"),
        Just("cgroup_paths"),
        Just("config"),
        Just("pid"),
        Just("cgroup-path"),
    ];
    let object = proptest::collection::vec((key, value), 0..6).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, v)| format!("\"{key}\":{v}")).collect();
        format!("{{{}}}", members.join(","))
    });
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        object.clone().prop_map(String::into_bytes),
        object.prop_map(|object| format!("[{object}]").into_bytes()),
    ]
}

proptest! {
    #[test]
    fn no_content_panics(content in hostile()) {
        for backend in backends(&roots(Path::new("/r"))) {
            for store in backend.stores() {
                let path = store.root.join("ns").join(A).join(store.file);
                // Either answer will do.
                let _ = backend.parse(store, &path, &content);
                let _ = backend.parse(store, Path::new("/"), &content);
            }
        }
    }
}
