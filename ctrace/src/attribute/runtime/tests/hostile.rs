//! Content that nobody would write, and content that was cut short or damaged.

use proptest::prelude::*;

use super::*;

/// A file of each kind, below the roots of the tests, and what it holds.
const VALID: &[(&str, &str)] = &[
    (
        "docker/containers/{A}/config.v2.json",
        r#"{"ID":"{A}","Name":"/x","State":{"Running":true,"Pid":7,"StartedAt":"2026-01-02T03:04:05Z"},
           "Config":{"Image":"i","Labels":{"io.kubernetes.pod.name":"p",
           "io.kubernetes.docker.type":"podsandbox"}}}"#,
    ),
    (
        "containerd/io.containerd.runtime.v2.task/ns/{A}/config.json",
        r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox","nerdctl/name":"n",
           "io.kubernetes.cri.sandbox-name":"p"},"linux":{"cgroupsPath":"/a/{A}"}}"#,
    ),
    ("containerd/io.containerd.runtime.v2.task/ns/{A}/init.pid", "4711"),
    ("nerdctl/names/default/n", "{A}"),
    (
        "storage/overlay-containers/containers.json",
        r#"[{"id":"{A}","names":["k8s_c_p_n_u_0"],"metadata":"{\"pod-id\":\"x\",\"metadata-name\":\"c\"}"}]"#,
    ),
    (
        "storage/overlay-containers/{A}/userdata/config.json",
        r#"{"annotations":{"io.kubernetes.cri-o.ContainerType":"container",
           "io.kubernetes.cri-o.Metadata":"{\"Name\":\"c\"}","io.kubernetes.cri-o.Name":"k8s_c_p_n_u_0",
           "io.kubernetes.cri-o.Labels":"{\"a\":\"b\"}"}}"#,
    ),
    (
        "runc/{A}/state.json",
        r#"{"id":"{A}","init_process_pid":9,"init_process_start":2,"config":{"labels":["bundle=/b"]},
           "cgroup_paths":{"":"/sys/fs/cgroup/r"}}"#,
    ),
    ("crun/{A}/status", r#"{"pid":1,"process-start-time":2,"cgroup-path":"/c","bundle":"/b"}"#),
    ("lxc/{A}/config", "lxc.uts.name = x\nlxc.cgroup.dir = a/b\n"),
    (
        "machines/{A}",
        "NAME={A}\nSCOPE=machine-a\\\\x2db.scope\nSERVICE=systemd-nspawn\nLEADER=7\nCLASS=container\n",
    ),
    ("logs/p_n_c-{A}.log", ""),
];

fn valid(index: usize) -> (PathBuf, Vec<u8>) {
    let (path, content) = VALID[index];
    (Path::new("/r").join(path.replace("{A}", A)), content.replace("{A}", A).into_bytes())
}

/// Gives `content` at `path` to all parsers that would read such a file.
fn parse(path: &Path, content: &[u8]) -> Vec<Metadata> {
    let mut all = Vec::new();
    for backend in backends(&roots(Path::new("/r"))) {
        for store in backend.stores() {
            let below = path.strip_prefix(&store.root).map(|below| below.components().count());
            let is_its = path.file_name().is_some_and(|name| store.file.takes(name));
            if is_its && below.is_ok_and(|count| count == store.depth + 1) {
                all.extend(backend.parse(store, path, content).into_iter().flatten());
            }
        }
    }
    all
}

#[test]
fn the_valid_ones_are_valid() {
    for index in 0..VALID.len() {
        let (path, content) = valid(index);
        let found = parse(&path, &content);
        assert_eq!(found.len(), 1, "{}", path.display());
        assert_eq!(found[0].container.id, A, "{}", path.display());
    }
}

/// JSON of the shapes that the backends know, with anything in the place of the values.
fn any_json() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("-1e999".to_owned()),
        Just("[[],{}]".to_owned()),
        Just("{\"\":null}".to_owned()),
        "\"[/._ a-z\u{0}-\u{1f}é]{0,8}\"",
    ];
    const KEYS: &[&str] = &[
        "ID",
        "id",
        "Name",
        "Config",
        "State",
        "names",
        "metadata",
        "annotations",
        "linux",
        "init_process_pid",
        "cgroup_paths",
        "config",
        "pid",
        "cgroup-path",
    ];
    let key = proptest::sample::select(KEYS).prop_map(str::to_owned);
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

/// Lines of `key = value`, as LXC's and machined's, of any words.
fn any_lines() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("CLASS=container"),
        Just("NAME="),
        Just("SCOPE="),
        Just("LEADER="),
        Just("lxc.cgroup.dir="),
        Just("lxc.cgroup.dir.container ="),
    ];
    let line = (key, r#"[a-z0-9./\\" \x00-\x1f\u{fffd}é=-]{0,12}"#);
    proptest::collection::vec(line, 0..6).prop_map(|lines| {
        let lines: Vec<_> = lines.iter().map(|(key, value)| format!("{key}{value}")).collect();
        lines.join("\n").into_bytes()
    })
}

proptest! {
    #[test]
    fn no_content_panics(content in prop_oneof![any_json(), any_lines()]) {
        for backend in backends(&roots(Path::new("/r"))) {
            for store in backend.stores() {
                for path in [&*store.root.join("ns").join(A).join("f"), Path::new("/"), Path::new("")] {
                    // Either answer will do.
                    let _ = backend.parse(store, path, &content);
                }
            }
        }
    }

    /// Damaged content gives no id but the file's own, or one of 64 digits, and nothing that leads a
    /// path astray.
    #[test]
    fn damage_is_harmless(
        index in 0..VALID.len(),
        end in any::<prop::sample::Index>(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        is_cut in any::<bool>(),
    ) {
        let (path, mut content) = valid(index);
        if is_cut {
            content.truncate(end.index(content.len() + 1));
        }
        for (at, byte) in flips {
            if !content.is_empty() {
                let at = at.index(content.len());
                content[at] = byte;
            }
        }
        for Metadata { container, placement, .. } in parse(&path, &content) {
            prop_assert!(is_safe_id(&container.id), "{:?}", container.id);
            if let Placement::InHierarchies(path) = placement {
                prop_assert!(path.starts_with('/'), "{path:?}");
            }
        }
    }

    /// No name of a file panics, and none gives an id that is not in it.
    #[test]
    fn no_name_panics(name in r"[a-z_\-.\x00-\x2e\u{fffd}]{0,80}(-[0-9a-f]{63,65})?(\.log)?") {
        for backend in backends(&roots(Path::new("/r"))) {
            for store in backend.stores() {
                let path = store.root.join(&name);
                for found in backend.parse(store, &path, b"CLASS=container").into_iter().flatten() {
                    prop_assert!(is_safe_id(&found.container.id));
                    prop_assert!(path.to_string_lossy().contains(&found.container.id));
                }
            }
        }
    }
}
