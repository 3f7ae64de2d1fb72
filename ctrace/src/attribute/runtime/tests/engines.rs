//! docker, containerd, nerdctl, CRI-O and podman.

use super::*;

const TASKS: &str = "containerd/io.containerd.runtime.v2.task";

#[test]
fn docker() {
    let root = tempfile::tempdir().unwrap();
    let config = r#"{"StreamConfig":{},"State":{"Running":true,"Paused":false,"Restarting":false,
        "OOMKilled":false,"RemovalInProgress":false,"Dead":false,"Pid":8976,"ExitCode":0,"Error":"",
        "StartedAt":"2026-01-02T03:04:05.678Z","FinishedAt":"0001-01-01T00:00:00Z","Health":null},
        "ID":"{A}","Config":{"Hostname":"b97","Env":null,"Image":"bb:latest",
        "Labels":{"team":"x","com.docker.compose.project":"shop"}},
        "Image":"sha256:5da4","Name":"/batch","Driver":"vfs"}"#;
    write(root.path(), "docker/containers/{A}/config.v2.json", config);
    let Metadata { container, init, state, placement, .. } = only(root.path(), A);
    assert_eq!(container.name.as_deref(), Some("batch"));
    assert_eq!(container.image.as_deref(), Some("bb:latest"));
    assert_eq!(container.runtime, Some(Runtime::Docker));
    assert_eq!(container.labels["team"], "x");
    assert_eq!(container.labels["com.docker.compose.project"], "shop");
    assert_eq!((container.pod, container.is_sandbox), (None, false));
    assert_eq!(init, Some(Init { pid: 8976, start_ticks: None }));
    assert_eq!((state, placement), (Some(State::Running), Placement::Unsaid));
}

#[test]
fn states_of_docker() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("docker/containers").join(A).join("config.v2.json");
    let of = |state: &str| {
        let config = format!(r#"{{"ID":"{A}","State":{{{state}}}}}"#);
        write(root.path(), path.strip_prefix(root.path()).unwrap().to_str().unwrap(), &config);
        let found = only(root.path(), A);
        (found.state.map(State::name), found.init.map(|init| init.pid))
    };
    let never = r#""Running":false,"Pid":0,"StartedAt":"0001-01-01T00:00:00Z""#;
    assert_eq!(of(never), (Some("created"), None));
    assert_eq!(of(r#""Running":true,"Pid":7"#), (Some("running"), Some(7)));
    assert_eq!(of(r#""Running":true,"Paused":true,"Pid":7"#), (Some("paused"), Some(7)));
    let waiting = r#""Running":true,"Restarting":true,"Pid":0,"StartedAt":"2026-01-02T03:04:05Z""#;
    assert_eq!(of(waiting), (Some("stopped"), None));
    assert_eq!(of(r#""Dead":true,"Pid":7"#), (Some("stopped"), None));
    let ended = r#""Running":false,"Pid":0,"StartedAt":"2026-01-02T03:04:05Z""#;
    assert_eq!(of(ended), (Some("stopped"), None));
}

#[test]
fn docker_for_kubernetes() {
    let root = tempfile::tempdir().unwrap();
    let config = |id: &str, name: &str, container: &str, kind: &str| {
        format!(
            r#"{{"ID":"{id}","Name":"/k8s_{name}","Config":{{"Image":"i","Labels":{{
            "io.kubernetes.pod.name":"web-0","io.kubernetes.pod.namespace":"prod",
            "io.kubernetes.pod.uid":"u","io.kubernetes.container.name":"{container}",
            "io.kubernetes.docker.type":"{kind}"}}}}}}"#
        )
    };
    let at = |id: &str| format!("docker/containers/{id}/config.v2.json");
    write(root.path(), &at(A), &config(A, "web_web-0_prod_u_0", "web", "container"));
    write(root.path(), &at(B), &config(B, "POD_web-0_prod_u_0", "POD", "podsandbox"));
    let web = only(root.path(), A).container;
    assert_eq!((web.name.as_deref(), web.is_sandbox), (Some("web"), false));
    let pod = web.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("prod")));
    assert_eq!(pod.uid.as_deref(), Some("u"));
    let pause = only(root.path(), B).container;
    assert_eq!((pause.name.as_deref(), pause.is_sandbox), (Some("k8s_POD_web-0_prod_u_0"), true));
    assert_eq!(pause.label(), "pause of pod web-0");
}

#[test]
fn containerd_and_its_clients() {
    let root = tempfile::tempdir().unwrap();
    let cri = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.container-name":"web",
        "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"nginx:1",
        "io.kubernetes.cri.sandbox-id":"{B}","custom":"x",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod",
        "io.kubernetes.cri.sandbox-uid":"u"},"linux":{"cgroupsPath":"a.slice:cri-containerd:{A}"}}"#;
    write(root.path(), &format!("{TASKS}/k8s.io/{{A}}/config.json"), cri);
    let found = only(root.path(), A);
    assert_eq!(found.container.name.as_deref(), Some("web"));
    assert_eq!(found.container.image.as_deref(), Some("nginx:1"));
    assert_eq!(found.container.runtime, Some(Runtime::Containerd));
    assert_eq!((found.placement, found.container.is_sandbox), (Placement::Unsaid, false));
    // An annotation is no label.
    assert_eq!(found.container.labels.len(), 0);
    let pod = found.container.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("prod")));

    let plain = r#"{"ociVersion":"1.0.2-dev","linux":{"cgroupsPath":"/docker/{B}"}}"#;
    write(root.path(), &format!("{TASKS}/moby/{B}/config.json"), plain);
    let found = only(root.path(), B);
    assert_eq!(found.container.runtime, Some(Runtime::Docker));
    assert_eq!(found.container.name, None);
    assert_eq!(found.placement, Placement::InHierarchies(format!("/docker/{B}")));

    let nerdctl = r#"{"annotations":{"nerdctl/name":"db","nerdctl/namespace":"default"}}"#;
    write(root.path(), &format!("{TASKS}/default/db1/config.json"), nerdctl);
    let container = only(root.path(), "db1").container;
    assert_eq!(container.runtime, Some(Runtime::Nerdctl));
    assert_eq!(container.name.as_deref(), Some("db"));
    // Deleted, but not yet unlinked.
    write(root.path(), &format!("{TASKS}/default/.gone/config.json"), "{}");
    assert_eq!(look_up(root.path(), ".gone"), []);
}

#[test]
fn a_sandbox_of_containerds() {
    let root = tempfile::tempdir().unwrap();
    let pause = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox",
        "io.kubernetes.cri.sandbox-id":"{A}","io.kubernetes.cri.sandbox-log-directory":"/var/log/x",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"prod"}}"#;
    write(root.path(), &format!("{TASKS}/k8s.io/{{A}}/config.json"), pause);
    let container = only(root.path(), A).container;
    assert!(container.is_sandbox);
    assert_eq!(container.label(), "pause of pod web-0");
}

#[test]
fn a_pid_file_knows_no_start() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &format!("{TASKS}/default/one/init.pid"), "4711");
    let found = only(root.path(), "one");
    assert_eq!(found.init, Some(Init { pid: 4711, start_ticks: None }));
    assert_eq!(found.bundle, Some(root.path().join(TASKS).join("default/one")));
    assert_eq!(found.container.runtime, Some(Runtime::Containerd));
    for other in ["", "-1", "4711 x", "99999999999"] {
        write(root.path(), &format!("{TASKS}/default/one/init.pid"), other);
        assert_eq!(look_up(root.path(), "one"), [], "{other:?}");
    }
}

#[test]
fn the_names_of_nerdctl() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "nerdctl/names/default/renamed", "{A}");
    // Just made, and nothing written yet; then what is no id.
    write(root.path(), "nerdctl/names/default/new", "");
    write(root.path(), "nerdctl/names/default/other", "x");
    let container = only(root.path(), A).container;
    assert_eq!(container.name.as_deref(), Some("renamed"));
    assert_eq!(container.runtime, Some(Runtime::Nerdctl));
    assert_eq!(look_up(root.path(), "x"), []);
}

#[test]
fn the_list_of_podman_and_cri_o() {
    let root = tempfile::tempdir().unwrap();
    let podman = r#"[{"id":"{A}","names":["p"],"image":"6afa","layer":"7d56","flags":{},
        "metadata":"{\"image-name\":\"localhost/bb:latest\",\"name\":\"p\",\"created-at\":1}"},
        {"id":"../{B}","names":["hostile"]}]"#;
    write(root.path(), "storage/overlay-containers/containers.json", podman);
    let container = only(root.path(), A).container;
    assert_eq!(container.name.as_deref(), Some("p"));
    assert_eq!(container.image.as_deref(), Some("localhost/bb:latest"));
    assert_eq!((container.runtime, container.is_sandbox), (Some(Runtime::Podman), false));

    let cri_o = r#"[{"id":"{B}","names":["k8s_web_web-0_prod_u_0"],"metadata":
        "{\"pod-name\":\"n\",\"pod-id\":\"x\",\"metadata-name\":\"web\",\"image-name\":\"i\"}"}]"#;
    write(root.path(), "storage/vfs-containers/volatile-containers.json", cri_o);
    let container = only(root.path(), B).container;
    assert_eq!((container.runtime, container.is_sandbox), (Some(Runtime::CriO), false));
    assert_eq!(container.name.as_deref(), Some("web"));
    assert_eq!(container.pod.unwrap().name.as_deref(), Some("web-0"));
    assert_eq!(look_up(root.path(), "p"), []);
}

#[test]
fn sandboxes_in_the_list() {
    let root = tempfile::tempdir().unwrap();
    let list = r#"[{"id":"{A}","names":["e24d7bff9966-infra"],"metadata":
        "{\"image-name\":\"localhost/podman-pause:4.3.1\",\"name\":\"e24d7bff9966-infra\"}"},
        {"id":"{B}","names":["k8s_POD_web-0_prod_u_0"],"metadata":
        "{\"pod-name\":\"n\",\"pod-id\":\"{B}\",\"metadata-name\":\"web-0\",\"pod\":true}"}]"#;
    write(root.path(), "storage/overlay-containers/containers.json", list);
    let infra = only(root.path(), A).container;
    assert_eq!((infra.is_sandbox, infra.name.as_deref()), (true, Some("e24d7bff9966-infra")));
    let pause = only(root.path(), B).container;
    assert_eq!((pause.is_sandbox, pause.name.as_deref()), (true, None));
    assert_eq!(pause.label(), "pause of pod web-0");
    for name in ["e24d7bff996-infra", "web-infra", "E24D7BFF9966-infra", "infra"] {
        let list = format!(r#"[{{"id":"{A}","names":["{name}"]}}]"#);
        write(root.path(), "storage/overlay-containers/containers.json", &list);
        assert!(!only(root.path(), A).container.is_sandbox, "{name}");
    }
}

#[test]
fn the_bundle_of_cri_o() {
    let root = tempfile::tempdir().unwrap();
    let bundle = |id: &str| format!("storage/overlay-containers/{id}/userdata/config.json");
    let web = r#"{"annotations":{"io.container.manager":"cri-o","tier":"backend",
        "io.kubernetes.cri-o.ContainerID":"{A}","io.kubernetes.cri-o.ContainerType":"container",
        "io.kubernetes.cri-o.SandboxID":"{B}","io.kubernetes.cri-o.Image":"6afa",
        "io.kubernetes.cri-o.ImageName":"quay.io/web:1","io.kubernetes.pod.uid":"u",
        "io.kubernetes.cri-o.Name":"k8s_web_web-0_prod_u_0",
        "io.kubernetes.cri-o.Metadata":"{\"name\":\"web\"}",
        "io.kubernetes.cri-o.Labels":"{\"io.kubernetes.container.name\":\"web\",\"app\":\"shop\",
         \"io.kubernetes.pod.name\":\"web-0\",\"io.kubernetes.pod.namespace\":\"prod\",
         \"io.kubernetes.pod.uid\":\"u\"}"},
        "linux":{"cgroupsPath":"kubepods-podu.slice:crio:{A}"}}"#
        .replace("\n         ", "");
    write(root.path(), &bundle(A), &web);
    let found = only(root.path(), A);
    assert_eq!(found.container.name.as_deref(), Some("web"));
    assert_eq!(found.container.image.as_deref(), Some("quay.io/web:1"));
    assert_eq!(found.container.runtime, Some(Runtime::CriO));
    assert_eq!((&*found.container.labels["app"], found.container.labels.len()), ("shop", 5));
    assert_eq!((found.container.is_sandbox, found.placement), (false, Placement::Unsaid));
    let pod = found.container.pod.unwrap();
    assert_eq!((pod.name.as_deref(), pod.namespace.as_deref()), (Some("web-0"), Some("prod")));
    assert_eq!(pod.uid.as_deref(), Some("u"));

    let pause = r#"{"annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"POD",
        "io.kubernetes.cri-o.ContainerID":"{B}","io.kubernetes.cri-o.ContainerType":"sandbox",
        "io.kubernetes.cri-o.ContainerName":"k8s_POD_web-0_prod_u_0",
        "io.kubernetes.cri-o.Image":"pause:3.5","io.kubernetes.cri-o.KubeName":"web-0",
        "io.kubernetes.cri-o.Namespace":"prod","io.kubernetes.cri-o.Name":"k8s_web-0_prod_u_0",
        "io.kubernetes.cri-o.Labels":"not JSON",
        "io.kubernetes.cri-o.Metadata":"{\"Name\":\"web-0\",\"UID\":\"u\",\"Namespace\":\"prod\"}"}}"#;
    write(root.path(), &bundle(B), pause);
    let pause = only(root.path(), B).container;
    assert_eq!((pause.is_sandbox, pause.name.as_deref()), (true, None));
    assert_eq!(pause.image.as_deref(), Some("pause:3.5"));
    assert_eq!(pause.label(), "pause of pod web-0");
    write(root.path(), &bundle(B), &web);
    assert_eq!(look_up(root.path(), B), [], "the file is another container's");
}

/// As podman 4.3.1 writes it, with `--cgroup-manager=cgroupfs`.
#[test]
fn the_bundle_of_podman() {
    let root = tempfile::tempdir().unwrap();
    let path = "storage/overlay-containers/{A}/userdata/config.json";
    let config = |linux: &str| {
        format!(
            r#"{{"hostname":"pod","annotations":{{"io.container.manager":"libpod",
            "io.kubernetes.cri-o.Created":"2026-11-21T04:28:56.363066951Z",
            "io.kubernetes.cri-o.TTY":"false","io.podman.annotations.autoremove":"FALSE",
            "io.kubernetes.cri-o.ContainerType":"container",
            "org.opencontainers.image.stopSignal":"15"}},"linux":{{{linux}}}}}"#
        )
    };
    let cgroup = format!("/libpod_parent/{B}/libpod-{A}");
    write(root.path(), path, &config(&format!(r#""cgroupsPath":"{cgroup}""#)));
    let found = only(root.path(), A);
    assert_eq!((found.container.runtime, found.container.name), (Some(Runtime::Podman), None));
    assert_eq!(found.placement, Placement::InHierarchies(cgroup));
    let userdata = root.path().join("storage/overlay-containers").join(A).join("userdata");
    assert_eq!(found.bundle, Some(userdata));
    // `--cgroups=disabled`; the systemd manager.
    for linux in ["", r#""cgroupsPath":"machine.slice:libpod:{A}""#] {
        write(root.path(), path, &config(linux));
        assert_eq!(only(root.path(), A).placement, Placement::Unsaid);
    }
    // Nobody's that is known here; not a bundle.
    write(root.path(), path, r#"{"annotations":{"io.container.manager":"other"}}"#);
    assert_eq!(only(root.path(), A).container.runtime, None);
    write(root.path(), "storage/overlay-containers/{B}/other/config.json", "{}");
    assert_eq!(look_up(root.path(), B), []);
}
