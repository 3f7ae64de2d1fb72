use proptest::prelude::*;

use super::*;

const A: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";
const B: &str = "eeb616351073049baabdcf877af9928fc984fc5155f5177012221b650a672b12";
const UID: &str = "0f1c2d3e-4a5b-4c6d-8e9f-001122334455";
const UID_: &str = "0f1c2d3e_4a5b_4c6d_8e9f_001122334455";

/// `runtime:id[@pod]` of each candidate but the merely possible, with `~` where it is only likely,
/// `!` for a helper and `?` where it may be podman's pod.
fn says(path: &str) -> Vec<String> {
    let short = |text: &str| text.replace(A, "A").replace(B, "B").replace(UID, "UID");
    parse(path)
        .into_iter()
        .filter(|c| c.certainty != Certainty::Possible)
        .map(|c| {
            let may_be_pod = if c.may_be_pod { "?" } else { "" };
            let likely = if c.certainty == Certainty::Likely { "~" } else { "" };
            let helper = if c.role == Role::RuntimeHelper { "!" } else { "" };
            let pod = c.pod_uid.map(|uid| format!("@{uid}")).unwrap_or_default();
            let runtime = c.runtime.map_or("-", Runtime::name);
            short(&format!("{helper}{likely}{may_be_pod}{runtime}:{}{pod}", c.id))
        })
        .collect()
}

#[test]
fn every_shape() {
    let table: &[(&str, &[&str])] = &[
        // docker: cgroupfs, systemd, rootless, a cgroup-parent of the user's.
        ("/docker/{A}", &["docker:A"]),
        ("/system.slice/docker-{A}.scope", &["docker:A"]),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope",
            &["docker:A"],
        ),
        ("/batch.slice/docker-{A}.scope", &["docker:A"]),
        ("/batch/{A}", &["~-:A"]),
        ("/docker/buildkit/x4rgmvo4zoc4j0pjzw6x0imb3", &[]),
        // Kubernetes with the systemd driver.
        ("/kubepods.slice/kubepods-pod{U_}.slice/cri-containerd-{A}.scope", &["containerd:A@UID"]),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice/crio-{A}.scope",
            &["cri-o:A@UID"],
        ),
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U_}.slice/docker-{A}.scope",
            &["docker:A@UID"],
        ),
        (
            "/docker/{A}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{U_}.slice/cri-containerd-{B}.scope",
            &["docker:A", "containerd:B@UID"],
        ),
        (
            "/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{U_}.slice/cri-containerd-{B}.scope",
            &["docker:A", "containerd:B@UID"],
        ),
        (
            "/machine.slice/libpod-{A}.scope/container/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{U_}.slice/cri-containerd-{B}.scope",
            &["podman:A", "containerd:B@UID"],
        ),
        ("/docker/{A}/kubelet/kubepods/besteffort/pod{U}/{B}", &["docker:A", "-:B@UID"]),
        ("/kubepods.slice/kubepods-pod{U_}.slice/crio-{A}.scope/container", &["cri-o:A@UID"]),
        ("/kubepods.slice/kubepods-pod{U_}.slice/crio-conmon-{A}.scope", &["!cri-o:A@UID"]),
        ("/kubepods.slice/kubepods-pod{U_}.slice", &[]),
        ("/kubepods.slice/kubepods-burstable.slice", &[]),
        // Kubernetes with cgroupfs; a static pod's UID is a hash.
        ("/kubepods/pod{U}/{A}", &["-:A@UID"]),
        ("/kubepods/besteffort/pod{U}/{A}", &["-:A@UID"]),
        ("/kubepods/burstable/pod{U}/crio-{A}", &["cri-o:A@UID"]),
        (
            "/kubepods/burstable/pod00112233445566778899aabbccddeeff/{A}",
            &["-:A@00112233445566778899aabbccddeeff"],
        ),
        ("/kubepods/burstable/pod{U}", &[]),
        ("/kubepods/burstable/pod{U}/crio-conmon-{A}", &["!cri-o:A@UID"]),
        ("/kubepods/podcafe/{A}", &["~-:A"]),
        // A slice's name where there is no systemd driver.
        (
            "/system.slice/containerd.service/kubepods-burstable-pod{U_}.slice:cri-containerd:{A}",
            &["containerd:A@UID"],
        ),
        ("/machine.slice:libpod:{A}", &["podman:A"]),
        ("/kubepods-pod{U_}.slice:crio:{A}", &["cri-o:A@UID"]),
        ("/system.slice:docker:{A}", &["docker:A"]),
        ("/system.slice/user.slice:nerdctl:{A}", &["nerdctl:A"]),
        ("/machine.slice:libpod:{A}:x", &[]),
        // nerdctl, ctr.
        ("/default/{A}", &["~-:A"]),
        ("/system.slice/nerdctl-{A}.scope", &["nerdctl:A"]),
        ("/default/web", &[]),
        // podman.
        ("/libpod_parent/libpod-{A}", &["podman:A"]),
        ("/libpod_parent/{B}/libpod-{A}", &["podman:A"]),
        ("/libpod_parent/{B}", &[]),
        ("/batch/{B}/libpod-{A}", &["~?-:B", "podman:A"]),
        ("/batch/{B}/app/libpod-{A}", &["~-:B", "podman:A"]),
        ("/libpod_parent/conmon", &["!podman:"]),
        ("/machine.slice/libpod-{A}.scope", &["podman:A"]),
        ("/machine.slice/libpod-{A}.scope/container", &["podman:A"]),
        ("/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container", &["podman:A"]),
        ("/machine.slice/libpod-conmon-{A}.scope", &["!podman:A"]),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
            &["podman:A"],
        ),
        ("/system.slice/web.service/libpod-payload-{A}", &["podman:A"]),
        ("/system.slice/web.service/libpod-payload-{A}/container", &["podman:A"]),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-{A}",
            &["podman:A"],
        ),
        ("/system.slice/web.service/runtime", &[]),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope/container",
            &["podman:A"],
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-conmon-{A}.scope",
            &["!podman:A"],
        ),
        ("/kubepods.slice/crio-conmon-{A}.scope", &["!cri-o:A"]),
        // runc and crun by hand: only their state can tell.
        ("/ctrace-test-r", &[]),
        ("/system.slice/runc-web.scope", &[]),
        // LXC.
        ("/lxc.payload.web", &["lxc:web"]),
        ("/lxc.payload.web-1/system.slice/nginx.service", &["lxc:web-1"]),
        ("/lxc/web", &["lxc:web"]),
        ("/lxc.monitor.web", &["!lxc:web"]),
        ("/lxc.pivot", &["!lxc:"]),
        // nspawn and what is not nspawn.
        (r"/machine.slice/machine-my\x2dbox.scope/payload", &["nspawn:my-box"]),
        (r"/machine.slice/machine-box.scope/supervisor", &["nspawn:box", "!nspawn:box"]),
        (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/emulator", &[]),
        (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope", &[]),
        (r"/machine.slice/machine-lxc\x2d1\x2dbox.scope", &[]),
        (r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload", &["nspawn:my-box"]),
        ("/machine.slice/systemd-nspawn@box.service/supervisor", &["nspawn:box", "!nspawn:box"]),
        ("/system.slice/machine-box.scope", &[]),
        ("/machine.slice/machine-.scope", &[]),
        // ECS.
        (
            "/ecs/cafe/00112233445566778899aabbccddeeff-1234567890",
            &["-:00112233445566778899aabbccddeeff-1234567890"],
        ),
        ("/ecs/00112233445566778899aabbccddeeff/{A}", &["~-:A"]),
        ("/ecs/cluster/00112233445566778899aabbccddeeff/{A}", &["~-:A"]),
        (
            "/ecstasks.slice/ecstasks-00112233445566778899aabbccddeeff.slice/docker-{A}.scope",
            &["docker:A"],
        ),
        ("/other/00112233445566778899aabbccddeeff-1234567890", &[]),
        // Containers in containers, and cgroups that a container makes.
        ("/docker/{A}/docker/{B}", &["docker:A", "docker:B"]),
        ("/docker/{A}/init.scope", &["docker:A"]),
        // Not containers.
        ("/", &[]),
        ("", &[]),
        ("/init.scope", &[]),
        ("/system.slice/docker.service", &[]),
        ("/system.slice/{A}.service", &[]),
        ("/system.slice/{A}.scope", &[]),
        ("/{A}.slice", &[]),
        ("/system.slice/x{A}.service", &[]),
        ("/system.slice/run-{A}.scope", &[]),
        ("/system.slice/docker-{A}.service", &[]),
        ("/system.slice/docker-{A}.mount", &[]),
        ("/system.slice/var-lib-docker-overlay2-{A}-merged.mount", &[]),
        ("/system.slice/cri-containerd-0123.scope", &[]),
        ("/machine.slice/machine-libpod_pod_{A}.slice", &[]),
        ("/a.slice:other:{A}", &[]),
        ("/.slice:docker:{A}", &[]),
        ("/process_api/ae7af356943f5dc0b326b70257cb3800", &[]),
    ];
    for (path, expected) in table {
        let path = path.replace("{A}", A).replace("{B}", B);
        let path = path.replace("{U_}", UID_).replace("{U}", UID);
        assert_eq!(says(&path), *expected, "{path}");
    }
}

#[test]
fn names_of_144_characters() {
    let slice = format!("kubepods-burstable-pod{UID_}.slice");
    let name = format!("{slice}:cri-containerd:{A}");
    assert_eq!(name.len(), 144);
    assert_eq!(says(&format!("/system.slice/containerd.service/{name}")), ["containerd:A@UID"]);
}

#[test]
fn words_are_possible_ids_and_units_are_not() {
    let ids = |path: &str| parse(path).into_iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(ids("/default/web"), ["default", "web"]);
    assert_eq!(ids("/system.slice/runc-web.scope"), ["web"]);
    assert_eq!(ids("/system.slice/ssh.service"), [""; 0]);
    assert_eq!(ids("/../..hidden/a b"), [""; 0]);
}

#[test]
fn depth_counts_levels() {
    let found = parse(&format!("/docker/{A}/docker/{B}/app"));
    let depths = found.iter().map(|c| (c.depth, c.certainty)).collect::<Vec<_>>();
    use Certainty::*;
    assert_eq!(depths, [(1, Possible), (2, Certain), (3, Possible), (4, Certain), (5, Possible)]);
}

#[test]
fn units() {
    let docker = format!("/system.slice/docker-{A}.scope");
    for (path, expected) in [
        ("/", None),
        ("/system.slice", None),
        ("/init.scope", Some("init.scope")),
        ("/system.slice/ssh.service", Some("ssh.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
        ("/system.slice/web.service/worker", Some("web.service")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope/x",
            Some("term.scope"),
        ),
        ("/user.slice/user-1000.slice/user@1000.service", Some("user@1000.service")),
        ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
        (docker.as_str(), docker.strip_prefix("/system.slice/")),
        ("/docker/x/system.slice/inner.service", None),
    ] {
        assert_eq!(unit(path), expected, "{path}");
    }
}

#[test]
fn only_slices_are_plain_host() {
    assert!(is_plain_host("/") && is_plain_host("/system.slice"));
    assert!(!is_plain_host("/foo") && !is_plain_host("/x.slice/a.service"));
    assert!(!is_plain_host("/a.slice:b.slice"));
}

#[test]
fn who_may_name_cgroups() {
    let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope";
    assert_eq!(user(path), Some((1000, 3)));
    for path in ["/user.slice/user-0.slice/user@0.service/x", "/user@x.service", "/docker"] {
        assert_eq!(user(path), None, "{path}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let path = String::from_utf8_lossy(&bytes);
        parse(&path);
        unit(&path);
        unescape(&path);
    }

    #[test]
    fn no_near_miss_panics(path in r"(/(docker|libpod|pod|machine)?[-:\\_.x]{0,3}([0-9a-fé]{0,70})(\.slice|\.scope)?){0,5}") {
        parse(&path);
        unit(&path);
    }

    /// Neither 64 digits, nor a form of LXC, nspawn or a slice with colons: no container.
    #[test]
    fn nothing_is_claimed_without_a_form(path in r"(/[a-z0-9_.\-]{1,63}){0,6}") {
        prop_assume!(!path.contains("lxc") && !path.contains("machine-") && !path.contains("ecs"));
        prop_assume!(!path.contains("conmon"));
        let claims = parse(&path).into_iter().filter(|c| c.certainty != Certainty::Possible).count();
        prop_assert_eq!(claims, 0);
    }

    /// A container stays found whatever it makes below itself.
    #[test]
    fn descendants_inherit(below in r"(/[a-z0-9_.\-]{1,40}){0,4}") {
        let path = format!("/docker/{A}{below}");
        let found = parse(&path);
        prop_assert!(found.iter().any(|c| c.id == A && c.certainty == Certainty::Certain));
    }

    /// Shapes that are put into each other: each container is found, in order, at its own depth.
    #[test]
    fn containers_nest(shapes in proptest::collection::vec((0..SHAPES.len(), "[0-9a-f]{64}"), 1..6)) {
        let mut path = String::new();
        let mut expected = Vec::new();
        for (shape, id) in shapes {
            let (text, runtime, level) = SHAPES[shape];
            let depth = components(&path).count() + level;
            path += &text.replace("{A}", &id).replace("{U_}", UID_).replace("{U}", UID);
            expected.push((id, runtime, depth));
        }
        let found = parse(&path).into_iter().filter(|c| c.certainty == Certainty::Certain);
        let found: Vec<_> = found.map(|c| (c.id, c.runtime, c.depth)).collect();
        prop_assert_eq!(found, expected, "{}", path);
    }

    /// Levels are in order, and nothing is found that is not in the path.
    #[test]
    fn candidates_are_of_the_path(path in "(/[a-z0-9_.:@\\\\-]{0,30}(docker-|libpod-|pod|machine-|lxc\\.payload\\.)?([0-9a-f]{64})?(\\.slice|\\.scope)?){0,6}") {
        let names: Vec<&str> = components(&path).collect();
        let mut last = 0;
        for Candidate { id, depth, pod_uid, .. } in parse(&path) {
            prop_assert!(depth > last && depth <= names.len());
            last = depth;
            let is_in = names[..depth].iter().any(|name| name.contains(&id) || unescape(name).contains(&id));
            prop_assert!(is_in, "{id} in {path}");
            prop_assert!(pod_uid.is_none_or(|uid| path.replace('_', "-").contains(&uid)));
        }
    }
}

/// Shapes that can stand anywhere: the path, its runtime and the container's level.
const SHAPES: &[(&str, Option<Runtime>, usize)] = &[
    ("/docker/{A}", Some(Runtime::Docker), 2),
    ("/system.slice/docker-{A}.scope", Some(Runtime::Docker), 2),
    ("/kubepods/burstable/pod{U}/{A}", None, 4),
    ("/kubepods.slice/kubepods-pod{U_}.slice/crio-{A}.scope/container", Some(Runtime::CriO), 3),
    (
        "/kubelet.slice/kubelet-kubepods-pod{U_}.slice/cri-containerd-{A}.scope",
        Some(Runtime::Containerd),
        3,
    ),
    ("/kubepods-pod{U_}.slice:cri-containerd:{A}", Some(Runtime::Containerd), 1),
    ("/libpod_parent/libpod-{A}", Some(Runtime::Podman), 2),
    ("/machine.slice/libpod-{A}.scope/container", Some(Runtime::Podman), 2),
    ("/web.service/libpod-payload-{A}", Some(Runtime::Podman), 2),
    ("/user.slice/nerdctl-{A}.scope", Some(Runtime::Nerdctl), 2),
    ("/lxc.payload.{A}/init.scope", Some(Runtime::Lxc), 1),
    ("/machine.slice/machine-{A}.scope/payload", Some(Runtime::Nspawn), 2),
];
