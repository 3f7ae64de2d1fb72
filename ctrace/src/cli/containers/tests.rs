use super::*;
use crate::event::{CgroupKey, FirstProcess, Lost, NamespaceInodes, Pod, Runtime, Source, State};

const ID: &str = "b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924";

fn listed() -> Listed {
    let container = Container {
        id: ID.into(),
        name: Some("batch\x1b[2J".into()),
        runtime: Some(Runtime::Docker),
        image: Some("nightly:1.4".into()),
        labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into(),
        pod: Some(Pod { name: Some("shop".into()), uid: Some("u-1".into()), ..Pod::default() }),
        ..Container::default()
    };
    let place = |hierarchy, id, controller: &str| CgroupPlace {
        key: CgroupKey { hierarchy, id },
        controllers: vec![controller.to_owned()],
        path: "/docker/x".into(),
    };
    Listed {
        container: container.into(),
        outer: Vec::new(),
        cgroups: vec![place(0, 63, "hugetlb"), place(4, 11948, "memory")],
        state: Some(State::Running),
        process: Some(FirstProcess {
            pid: 42,
            start_ticks: Some(100),
            started_ns: Some(1_000_000_000),
            namespaces: NamespaceInodes { pid: Some(7), ..NamespaceInodes::default() },
        }),
        tasks: Some(3),
        memory_bytes: Some(4096),
        sources: vec![
            Source { fact: "metadata", from: "/x/config.v2.json".into() },
            Source { fact: "cgroup", from: "walk".into() },
        ],
    }
}

#[test]
fn in_full() {
    let expected = "\
batch\\x1b[2J
    id          b9771916bc00f40a419cbc2966299fdfd336c3a44be2f031cf6785d7f6f88924
    name        batch\\x1b[2J
    runtime     docker
    image       nightly:1.4
    pod         shop, uid u-1
    state       running
    pid         42, started 1970-01-01T00:00:01.000000000Z
    namespaces  pid 7, mnt ?, net ?, user ?, uts ?, ipc ?, cgroup ?
    tasks       3
    memory      4.0 KiB
    cgroup      /docker/x  (v2 hugetlb, id 63)
                /docker/x  (v1 4 memory, id 11948)
    labels      a=1
                b=2
    sources     metadata: /x/config.v2.json
                cgroup: walk
";
    assert_eq!(details(&listed(), false), expected);
}

#[test]
fn lines_of_starts_and_ends() {
    let line = |turn| turn_line(turn, &listed(), 1_500_000_000, &TimeZone::UTC);
    let start = "+ 00:00:01.500  b9771916bc00  batch\\x1b[2J  nightly:1.4";
    assert_eq!(line(Turn::Start), start);
    assert!(line(Turn::End).starts_with("- 00:00:01.500  b9771916bc00"));
    let nameless = Container { id: "x".into(), ..Container::default() };
    let nameless = Listed { container: nameless.into(), ..Listed::default() };
    assert!(turn_line(Turn::End, &nameless, 0, &TimeZone::UTC).ends_with("  x  -  -"));
}

#[test]
fn json_lines_of_starts_and_losses() {
    let layout = CgroupLayout { kind: kernel::LayoutKind::V2, hierarchies: Vec::new() };
    let write = |happening: &Happening| {
        let mut out = Vec::new();
        write_turn(&mut out, happening, Format::Json, &layout, false, &TimeZone::UTC).unwrap();
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice::<serde_json::Value>(&out).unwrap()
    };
    let turn = Happening::Turn { turn: Turn::Start, listed: listed().into(), time_ns: 1 };
    let start = write(&turn);
    assert_eq!(
        (&start["type"], &start["container"]["id"]),
        (&"container_start".into(), &ID.into())
    );
    let lost = Lost { ring: "lifecycle", kind: "cgroup_mkdir", count: 2 };
    assert_eq!(write(&Happening::Lost(lost))["lost"]["count"], 2);
}
