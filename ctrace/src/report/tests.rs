use ctrace_common::totals::{SLOTS, least_of, slot};
use proptest::prelude::*;

use super::*;
use crate::event::{Container, Exit, Oom, Subject, Throttle};

fn container(id: &str, name: &str) -> Attribution {
    let container =
        Container { id: id.to_owned(), name: Some(name.to_owned()), ..Container::default() };
    Attribution { container: Some(container.into()), ..Attribution::default() }
}

fn host() -> Attribution {
    Attribution { via: Via::Unit, ..Attribution::default() }
}

fn event(attribution: Attribution, payload: Payload) -> Event {
    let subject = Subject { attribution: attribution.into(), ..Subject::default() };
    Event { time_ns: 0, subject: Some(subject), payload }
}

fn total(durations: &[u64], bytes: u64) -> Total {
    let mut total = Total { sum_ns: 0, bytes, slots: [0; SLOTS] };
    durations.iter().for_each(|ns| total.slots[slot(*ns)] += 1);
    total
}

fn key(measure: Measure, detail: u32) -> TotalKey {
    TotalKey { measure: measure as u32, detail, ..TotalKey::default() }
}

/// 254:0
const DEVICE: u32 = 254 << 20;

fn sample() -> Report {
    let mut report = Report::default();
    let (web, batch) = (container("b1", "web"), container("a1", "batch"));
    let throttle = Throttle { throttled_ns: 1_500_000_000, ..Throttle::default() };
    for _ in 0..2 {
        report.note(&event(web.clone(), Payload::Throttle(throttle.clone())));
    }
    report.note(&event(batch.clone(), Payload::OomKill(Oom::default().into())));
    report.note(&event(host(), Payload::Exit(Exit::default())));
    report.add(&Attribution::default(), &key(Measure::BlockOther, DEVICE), &total(&[0], 0));
    report.add(&web, &key(Measure::RunQueue, 0), &total(&[2_000_000; 10], 0));
    report.add(&web, &key(Measure::BlockRead, DEVICE), &total(&[100_000; 99], 4096 * 99));
    report.add(&web, &key(Measure::BlockRead, DEVICE), &total(&[1 << 23], 4096));
    report.add(&web, &key(Measure::BlockWrite, DEVICE | 5), &total(&[0], 512));
    report
}

fn disk(number: &str) -> Option<String> {
    (number == "254:0").then(|| "vda".to_owned())
}

#[test]
fn a_table_by_name() {
    let expected = "\
CONTAINER  OOM KILLS  DENIALS  THROTTLED  RUN QUEUE P99  EVENTS
batch      1          -        -          -              1 oom_kill
web        -          -        3.000 s    1.966 ms       2 throttle
  vda read: 100, 400.0 KiB, p50 106.496 µs, p99 106.496 µs
  254:5 write: 1, 512 B, p50 1.024 µs, p99 1.024 µs
(host)     -          -        -          -              1 exit
(unknown)  -          -        -          -              -
  vda other: 1, 0 B, p50 1.024 µs, p99 1.024 µs
";
    let report = sample();
    assert_eq!(report.table(disk), expected);
    let line = report.line(disk).expect("something happened");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["containers"][0]["oom_kills"], 1);
    let web = &line["containers"][1];
    assert_eq!((&web["id"], &web["throttled_ns"]), (&"b1".into(), &3_000_000_000_u64.into()));
    assert_eq!(web["run_queue"]["count"], 10);
    assert_eq!(web["block"][0]["disk"], "vda");
    assert_eq!(web["block"][1]["device"], "254:5");
    assert_eq!(web["block"][1]["disk"], serde_json::Value::Null);
    assert_eq!(line["host"]["events"]["exit"], 1);
    assert_eq!(line["unknown"]["block"][0]["count"], 1);
}

#[test]
fn the_schema_file_is_up_to_date() {
    crate::event::is_published("summary.schema.json", &schema());
}

#[test]
fn nothing_happened() {
    let report = Report::default();
    assert_eq!((report.table(disk), report.line(disk)), (String::new(), None));
}

#[test]
fn two_reports_are_one() {
    let mut twice = sample();
    twice.merge(sample());
    let web = &twice.parts[&Owner::Container("b1".to_owned())];
    assert_eq!((web.events["throttle"], web.throttled_ns), (4, 6_000_000_000));
    assert_eq!(web.run_queue.count(), 20);
    let read = &web.block[&(DEVICE, Op::Read)];
    assert_eq!((read.count(), read.bytes), (200, 4096 * 200));
}

#[test]
fn too_many_are_one() {
    let mut report = Report::default();
    let one = |id: usize| container(&format!("{id:05}"), "same");
    report.note(&event(host(), Payload::Exit(Exit::default())));
    for id in 0..MAX_CONTAINERS + 10 {
        report.note(&event(one(id), Payload::Exit(Exit::default())));
    }
    assert_eq!(report.parts.len(), MAX_CONTAINERS + 1);
    assert_eq!(report.parts[&Owner::OtherContainers].events["exit"], 11);
    assert_eq!(report.parts[&Owner::Host].events["exit"], 1);
    report.note(&event(one(3), Payload::Exit(Exit::default())));
    assert_eq!(report.parts[&Owner::Container("00003".to_owned())].events["exit"], 2);
}

#[test]
fn percentiles_of_the_border_slots() {
    let of = |durations: &[u64]| {
        let mut latency = Latency::default();
        latency.add(&total(durations, 0));
        latency
    };
    assert_eq!(Latency::default().percentile(99), None);
    assert_eq!(of(&[]).percentile(50), None);
    assert_eq!(of(&[0]).percentile(50), Some(least_of(1)));
    assert_eq!(of(&[u64::MAX]).percentile(50), Some(least_of(SLOTS - 1)));
    let hundred: Vec<u64> = (0..100).map(|n| if n < 99 { 5_000 } else { 1 << 30 }).collect();
    assert_eq!(slot(of(&hundred).percentile(99).expect("some")), slot(5_000));
    assert_eq!(slot(of(&hundred).percentile(100).expect("some")), slot(1 << 30));
}

proptest! {
    /// Within an eighth of the true percentile, where the slots reach.
    #[test]
    fn percentiles_are_close(
        mut durations in prop::collection::vec(1_u64 << 10..1 << 35, 1..200),
        percent in 1_u64..=100,
    ) {
        let mut latency = Latency::default();
        latency.add(&total(&durations, 0));
        durations.sort_unstable();
        let rank = (durations.len() as u64 * percent).div_ceil(100).max(1) as usize;
        let exact = durations[rank - 1] as f64;
        let got = latency.percentile(percent).expect("some") as f64;
        prop_assert!((got - exact).abs() <= exact / 8.0 + 1.0, "{got} for {exact}");
    }
}
