use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::event::{Attribution, Container, Exec, Exit, Level, Oom, Payload, Subject};

fn subject() -> Subject {
    let labels = [("app.kubernetes.io/name", "web"), ("tier", "front")];
    let container = Container {
        id: "c1".to_owned(),
        name: Some("web".to_owned()),
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Container::default()
    };
    let attribution = Attribution { container: Some(container.into()), ..Default::default() };
    let mut subject = Subject { attribution: attribution.into(), ..Subject::default() };
    subject.process.tid = 7;
    subject.process.comm = Some("java".to_owned());
    subject
}

fn event(payload: Payload) -> Event {
    Event { time_ns: 0, subject: Some(subject()), payload }
}

fn exit() -> Event {
    let exit = Exit { code: Some(3), runtime_ns: Some(1_500_000_000), ..Exit::default() };
    event(Payload::Exit(exit))
}

fn exec() -> Event {
    let args = ["java", "-Xmx2g", "-jar"].map(str::to_owned).to_vec();
    event(Payload::Exec(Exec { filename: None, args, args_cut_bytes: 0 }))
}

fn oom() -> Event {
    let level = |limit_bytes| Level { limit_bytes, ..Level::default() };
    let levels = vec![level(Some(64 << 20)), level(None), level(Some(2 << 30))];
    event(Payload::OomKill(
        Oom { levels, hit: Some(0), oom_score_adj: Some(-997), ..Oom::default() }.into(),
    ))
}

fn holds(text: &str, event: &Event) -> bool {
    Condition::parse(text).unwrap_or_else(|error| panic!("{error}")).holds(event)
}

#[test]
fn comparisons() {
    for text in [
        "exit.code == 3",
        "exit.code != 0",
        "exit.code>2&&exit.code<=3",
        "exit.runtime_ns > 1s",
        "exit.runtime_ns == 1.5s",
        "exit.runtime_ns >= 1500ms",
        "process.comm == \"java\"",
        "process.comm == java",
        "process.comm ~ 'j?v*'",
        "exit.core_dumped == false",
        "exit.container_end != true",
        "container.name == web && type == exit",
        "container.labels.tier == front",
        "container.labels.\"app.kubernetes.io/name\" == web",
        "exit.code == 9 || exit.code == 3",
        "!(exit.code == 9) && !exit.code == 9",
        "v == 1",
        "attribution == unknown",
    ] {
        assert!(holds(text, &exit()), "{text}");
    }
    for text in [
        "exit.code == 4",
        "exit.runtime_ns < 1500000000",
        "process.comm ~ 'jav'",
        "process.comm != java",
        "exit.code == 3 && exit.code == 4 || exit.code == 5",
        "exit.code == 3 && (exit.code == 4 || exit.code == 5)",
        "container.labels.none == x",
    ] {
        assert!(!holds(text, &exit()), "{text}");
    }
}

#[test]
fn what_is_not_there_fits_nothing() {
    for text in ["exit.signal == SIGKILL", "exit.signal != SIGKILL", "exit.signal ~ '*'"] {
        assert!(!holds(text, &exit()), "null: {text}");
    }
    for text in ["exit.code == 0", "exit.code != 0"] {
        assert!(!holds(text, &exec()), "another type: {text}");
    }
    assert!(holds("!(exit.code == 0)", &exec()));
}

#[test]
fn one_of_a_list_is_enough() {
    assert!(holds("exec.args ~ '-Xmx*'", &exec()) && !holds("exec.args ~ '-Xms*'", &exec()));
    assert!(holds("oom.levels.limit_bytes > 1GiB", &oom()));
    assert!(!holds("oom.levels.limit_bytes > 2GiB", &oom()));
    assert!(holds("oom.limit_bytes == 64MiB && oom.oom_score_adj < -900", &oom()));
}

#[test]
fn errors_point_at_the_place() {
    for (text, expected) in [
        (
            "oom.gfp_maks > 1",
            "no event has the field oom.gfp_maks; is it oom.gfp_mask?\n  oom.gfp_maks > 1\n      \
             ^^^^^^^^",
        ),
        (
            "exit.code == 1s",
            "'1s' does not fit exit.code, which is a number without a unit: 3\n  exit.code == \
             1s\n               ^^",
        ),
        (
            "type == oom_kil",
            "type is never oom_kil; is it oom_kill?\n  type == oom_kil\n          ^^^^^^^",
        ),
        (
            "process.comm > x",
            "process.comm is text: == != ~ compare it\n  process.comm > x\n               ^",
        ),
        ("exit.code = 1", "write ==\n  exit.code = 1\n            ^"),
        ("exit.code ==", "a value belongs here\n  exit.code ==\n              ^"),
    ] {
        let error = Condition::parse(text).expect_err(text);
        assert_eq!(error, expected, "{error}");
    }
    let names = |text: &str, hint: &str| {
        let error = Condition::parse(text).expect_err(text);
        assert!(error.contains(hint), "{error}");
    };
    names("limit_bytes > 1", "oom.limit_bytes");
    names("process == 1", "pid, ");
    names("comm == x", "process.comm");
    names("exit.code == 'x'", "without quotes");
    names("exit.code == 1 exit.code == 2", "&&");
    names("(exit.code == 1", "not closed");
    names("exit.code == 1)", "no ( is open");
    names("process.comm == 'x", "no closing '");
    names("exit.core_dumped == yes", "true or false");
    names("oom.limit_bytes > 0.3B", "no whole number of bytes");
    names("oom.limit_bytes > 1ms", "does not fit");
    names("exit.code ~ 1", "a number");
    names("", "a field belongs here");
    names(&"(".repeat(100_000), "nested too deeply");
}

/// A field that is no field of any event would be caught by the schema's own tests.
#[test]
fn every_field_of_a_type_can_be_asked() {
    let kinds: BTreeMap<&str, known::Kind> = [
        ("oom.limit_bytes", known::Kind::Number(known::Unit::Bytes)),
        ("exit.runtime_ns", known::Kind::Number(known::Unit::Nanoseconds)),
        ("process.pid", known::Kind::Number(known::Unit::None)),
        ("exec.args", known::Kind::Text(Vec::new())),
        ("oom.memory_events.oom_kill", known::Kind::Number(known::Unit::None)),
        ("oom.trigger.container.name", known::Kind::Text(Vec::new())),
        ("container.sandbox", known::Kind::Flag),
    ]
    .into();
    for (path, kind) in kinds {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        assert_eq!(known::kind(&path), Ok(kind), "{path:?}");
    }
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "exit.code",
        "oom.limit_bytes",
        "process.comm",
        "exec.args",
        "type",
        "container.labels.",
        "==",
        "!=",
        "<",
        ">=",
        "~",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "1",
        "1GiB",
        "1.5s",
        "-3",
        "java",
        "\"a b\"",
        "'",
        "\\",
        "true",
        " ",
        "µ",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(error.lines().count() >= 3);
        }
    }

    #[test]
    fn any_words(words in prop::collection::vec(word(), 0..20)) {
        if let Ok(condition) = Condition::parse(&words.join(" ")) {
            let _ = condition.holds(&exit());
        }
        let _ = Condition::parse(&words.concat());
    }

    #[test]
    fn numbers_compare_as_numbers(code in 0_u32..256, other in -300_i64..300) {
        let exit = event(Payload::Exit(Exit { code: Some(code), ..Exit::default() }));
        let code = i64::from(code);
        for (operator, expected) in [
            ("==", code == other),
            ("!=", code != other),
            ("<", code < other),
            ("<=", code <= other),
            (">", code > other),
            (">=", code >= other),
        ] {
            prop_assert_eq!(holds(&format!("exit.code {operator} {other}"), &exit), expected);
        }
    }

    #[test]
    fn text_in_quotes_is_itself(comm in any::<String>()) {
        let quoted = comm.replace('\\', "\\\\").replace('"', "\\\"");
        let mut event = exit();
        event.subject.as_mut().expect("one").process.comm = Some(comm);
        let is_it = holds(&format!("process.comm == \"{quoted}\""), &event);
        prop_assert!(is_it);
    }
}
