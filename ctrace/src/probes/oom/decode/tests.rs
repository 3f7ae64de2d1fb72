//! Records as the eBPF program makes them, turned into events and their text.

use ctrace_common::{
    COMM_LEN, Header, TaskIdentity,
    event::{cgroup::MAX_DEPTH, oom::VictimMemory},
};
use proptest::prelude::*;
use zerocopy::{FromZeros, IntoBytes};

use super::*;
use crate::{
    event::{Attribution, Container, Event, Runtime, Via},
    sink::{Json, Sink, Text},
};

const UNLIMITED: u64 = i64::MAX as u64 / 4096;
const ID: &str = "c1effd65a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c";

fn decoder() -> OomDecoder {
    OomDecoder {
        page_size: 4096,
        symbols: Background::new(|| None),
        nodes_with_memory: 1,
        lock_known: true,
        log: OomLog::default(),
        last: None,
    }
}

fn identity(pid: u32, comm: &[u8]) -> TaskIdentity {
    let mut name = [0; COMM_LEN];
    name[..comm.len()].copy_from_slice(comm);
    TaskIdentity {
        start_boottime_ns: 7_000_000_000,
        parent_start_boottime_ns: 6_000_000_000,
        mnt_ns_id: 70,
        net_ns_id: 71,
        pid_ns_id: 72,
        cgroup_v2: 63,
        cgroup_v1: 45,
        hierarchy_v1: 8,
        tgid: pid,
        tid: pid,
        ppid: 1960,
        uid: 0,
        pid_in_ns: 7,
        pid_ns: 4026532183,
        mnt_ns: 4026532180,
        net_ns: 4026532184,
        flags: TaskIdentity::HAS_UID,
        pid_ns_level: 1,
        comm: name,
    }
}

/// A docker container with a limit of 64 MiB, on a hybrid host.
fn record() -> OomKill {
    let mut record = OomKill::new_zeroed();
    record.header = Header {
        time_ns: 72_000_000_123,
        kind: Kind::OomKill as u16,
        flags: 0,
        size: size_of::<OomKill>() as u32,
    };
    record.victim = identity(1991, b"tail");
    record.trigger = identity(1992, b"sh");
    record.memory = VictimMemory {
        total_vm_pages: 17_000,
        anon_rss_pages: 16_000,
        file_rss_pages: -3,
        shmem_rss_pages: 2,
        swap_pages: 0,
        pgtables_bytes: 180_224,
    };
    record.flags = OomKill::HAS_VICTIM | OomKill::HAS_MEMORY | OomKill::HAS_MEMS_ALLOWED;
    record.memory_hierarchy = 4;
    record.mems_allowed = 1;
    record.level_count = 3;
    let level = |cgroup, usage_pages, max_pages, flags| MemcgLevel {
        cgroup,
        usage_pages,
        max_pages,
        swap_usage_pages: usage_pages,
        swap_max_pages: UNLIMITED,
        failcnt: 12,
        flags,
        under_oom: 0,
    };
    record.levels[0] = level(11948, 16_384, 16_384, MemcgLevel::OOM_LOCK);
    record.levels[1] = level(4000, 16_390, UNLIMITED, 0);
    record.levels[2] = level(1, 500_000, UNLIMITED, 0);
    record.events[0][OOM_KILL] = 1;
    record.trigger_levels[..3].copy_from_slice(&[11948, 4000, 1]);
    record
}

fn decode(record: &OomKill) -> (Subject, Oom) {
    let mut decoder = decoder();
    let (mut subject, mut payload) = decoder.decode(record.as_bytes()).expect("a whole record");
    let container = Container {
        id: ID.to_owned(),
        name: Some("batch".to_owned()),
        runtime: Some(Runtime::Docker),
        image: Some("bb:latest".to_owned()),
        ..Container::default()
    };
    let container = Some(container.into());
    subject.attribution =
        Attribution { container, via: Via::Cgroup, ..Attribution::default() }.into();
    let paths = [&*format!("/docker/{ID}"), "/docker", "/"];
    for (cgroup, path) in payload.detail_mut().cgroups_mut().into_iter().zip(paths) {
        cgroup.path = Some(path.into());
    }
    if let Some(cgroup) = &mut subject.cgroup {
        cgroup.path = Some(paths[0].into());
    }
    decoder.complete(&subject, &mut payload);
    match payload {
        Payload::OomKill(oom) => (subject, *oom),
        other => panic!("{other:?}"),
    }
}

fn render(sink: &mut dyn Sink, (subject, oom): (Subject, Oom)) -> String {
    let event = Event {
        time_ns: 1_795_205_701_123_456_789,
        subject: Some(subject),
        payload: Payload::OomKill(Box::new(oom)),
    };
    let mut out = Vec::new();
    sink.write(&event, &mut out).expect("a Vec takes all");
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn the_container_s_limit_is_what_was_hit() {
    let (subject, oom) = decode(&record());
    assert_eq!(subject.process.comm.as_deref(), Some("tail"));
    assert_eq!(subject.cgroup.map(|c| c.key), Some(CgroupKey { hierarchy: 4, id: 11948 }));
    assert_eq!((oom.constraint, oom.hit, oom.memsw), (Some(Constraint::Memcg), Some(0), false));
    assert_eq!(oom.limit().and_then(|level| level.limit_bytes), Some(67_108_864));
    assert_eq!(oom.levels[1].limit_bytes, None);
    let memory = oom.memory.expect("it was read");
    assert_eq!((memory.anon_rss, memory.file_rss), (65_536_000, 0));
    assert_eq!(oom.id, 72_000_000);
    assert_eq!(oom.trigger.process.pid, Some(1992));
}

#[test]
fn the_limit_on_memory_and_swap_is_told_apart() {
    let mut record = record();
    record.levels[0].max_pages = 32_768;
    record.levels[0].swap_max_pages = 20_000;
    record.levels[0].swap_usage_pages = 20_000;
    let (_, oom) = decode(&record);
    assert_eq!((oom.hit, oom.memsw), (Some(0), true));
    let json: serde_json::Value =
        serde_json::from_str(&render(&mut Json::default(), decode(&record))).expect("JSON");
    assert_eq!(json["oom"]["limit_bytes"], 20_000 * 4096);
    assert_eq!(json["oom"]["limit_file"], "memory.memsw.limit_in_bytes");
}

#[test]
fn the_hook_is_believed() {
    let mut record = record();
    record.flags |= OomKill::HAS_CONTROL;
    record.constraint = CONSTRAINT_MEMCG;
    record.oom_memcg = 4000;
    let (_, oom) = decode(&record);
    assert_eq!((oom.via, oom.hit), (Some(OomVia::Hook), Some(1)));
    // An exiting task is chosen before the constraint is worked out.
    record.constraint = 0;
    assert_eq!(decode(&record).1.constraint, Some(Constraint::Memcg));
    record.oom_memcg = 0;
    assert_eq!(decode(&record).1.constraint, Some(Constraint::Global));
    record.constraint = CONSTRAINT_CPUSET;
    assert_eq!(decode(&record).1.constraint, Some(Constraint::Cpuset));
}

#[test]
fn a_victim_known_by_pid_alone_has_no_invented_facts() {
    let mut record = record();
    record.flags = OomKill::LEVELS_OF_TRIGGER;
    record.victim = TaskIdentity::new_zeroed();
    record.victim.tid = 77;
    let (subject, payload) = decoder().decode(record.as_bytes()).expect("a whole record");
    let Payload::OomKill(oom) = payload else { panic!() };
    assert_eq!(subject.process.pid, None);
    assert_eq!(subject.cgroup, None);
    assert_eq!((oom.memory, oom.oom_score_adj), (None, None));
    assert_eq!(oom.hit, Some(0), "the trigger's levels still tell the limit");
}

#[test]
fn the_kernel_s_log_has_the_last_word() {
    let mut decoder = decoder();
    let (subject, mut payload) = decoder.decode(record().as_bytes()).expect("a whole record");
    let lines = [
        "sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
         oom_memcg=/elsewhere,task_memcg=/x,task=tail,pid=1991,uid=0",
        "Memory cgroup out of memory: Killed process 1991 (tail) total-vm:68000kB, \
         anon-rss:64012kB, file-rss:4kB, shmem-rss:8kB, UID:0 pgtables:176kB oom_score_adj:0",
    ];
    lines.into_iter().for_each(|line| decoder.log.line(line));
    decoder.complete(&subject, &mut payload);
    let Payload::OomKill(oom) = payload else { panic!() };
    assert_eq!(oom.via, Some(OomVia::KernelLog));
    assert_eq!(oom.logged_cgroup.as_deref(), Some("/elsewhere"));
    assert_eq!(oom.memory.map(|memory| memory.anon_rss), Some(64012 * 1024));
    assert_eq!((oom.gfp_mask, oom.order), (Some(0xcc0), Some(0)));
    assert!(decoder.log.is_empty());
}

#[test]
fn text() {
    let text = || Text::new(false, jiff::tz::TimeZone::UTC);
    let line = render(&mut text(), decode(&record()));
    let expected = "\
20:15:01.123  batch         oom_kill  tail[1991] killed: limit 64.0 MiB of /docker/c1effd65a1b2… hit, \
anon-rss 62.5 MiB, triggered by sh[1992] of unknown cgroup
";
    assert_eq!(line, expected);
    // A line break that is escaped takes the indent of the next line with it.
    let evidence = "    \
    victim      tail[1991], ppid 1960, uid 0, container pid 7
    container   batch, docker c1effd65a1b2, image bb:latest
    trigger     sh[1992], ppid 1960, uid 0, unknown cgroup
    constraint  memcg (via counters)
    cgroup      /docker/c1effd65a1b2…: 64.0 MiB of 64.0 MiB  <- limit hit
                /docker: 64.0 MiB, no limit
                /: 1.9 GiB, no limit
    memory      anon-rss 62.5 MiB, file-rss 0 B, shmem-rss 8.0 KiB, swap 0 B, page tables \
176.0 KiB, total-vm 66.4 MiB
    events      oom_kill 1, failcnt 12
    oom         id 72000000, oom_score_adj 0
";
    let verbose = render(&mut text().verbose(true), decode(&record()));
    assert_eq!(verbose, format!("{expected}{evidence}"));
}

#[test]
fn json() {
    let line = render(&mut Json::default(), decode(&record()));
    assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["v"], 1);
    assert_eq!(event["time"], "2026-11-20T20:15:01.123456789Z");
    assert_eq!(event["type"], "oom_kill");
    assert_eq!(event["container"]["name"], "batch");
    assert_eq!(event["container"]["via"], "cgroup");
    assert_eq!(event["oom"]["limit_bytes"], 67_108_864);
    assert_eq!(event["oom"]["memory_events"]["oom_kill"], 1);
    assert_eq!(event["oom"]["levels"][1]["limit_bytes"], serde_json::Value::Null);
}

#[test]
fn hostile_names_stay_on_their_line() {
    let mut record = record();
    record.victim = identity(1991, b"\x1b[31m\n\"\xff\x07");
    let mut text = Text::new(false, jiff::tz::TimeZone::UTC).verbose(true);
    let text = render(&mut text, decode(&record));
    assert!(text.contains("\\x1b[31m\\n\"\u{fffd}\\x07[1991]"), "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    let line = render(&mut Json::default(), decode(&record));
    assert_eq!(line.lines().count(), 1);
    let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["process"]["comm"], "\u{1b}[31m\n\"\u{fffd}\u{7}");
}

proptest! {
    /// Whatever the bytes: an error or an event that renders, never a panic.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..size_of::<OomKill>() + 64)) {
        let _ = decoder().decode(&bytes);
    }

    #[test]
    fn any_record(bytes in prop::collection::vec(any::<u8>(), size_of::<OomKill>())) {
        let mut decoder = decoder();
        let (subject, mut payload) = decoder.decode(&bytes).expect("long enough");
        decoder.complete(&subject, &mut payload);
        let event = Event { time_ns: 0, subject: Some(subject), payload };
        let mut out = Vec::new();
        Json::default().write(&event, &mut out).expect("a Vec takes all");
        serde_json::from_slice::<serde_json::Value>(&out).expect("JSON");
        let Payload::OomKill(oom) = &event.payload else { panic!() };
        prop_assert!(oom.levels.len() <= MAX_DEPTH);
    }
}
