//! The stream of events: conditions on their fields, the text for people, the summary at the end.

use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::finish;
use ctrace_tests::docker;
use ctrace_tests::event::Event;
use ctrace_tests::facts::ctrace;
use ctrace_tests::marked;
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::{Watch, no_panic};

/// A shell that ends with this code.
fn exit_with(code: i32) -> Result<u32> {
    let mut child = Command::new("/bin/sh").args(["-c", &format!("exit {code}")]).spawn()?;
    let pid = child.id();
    equal("exit code", child.wait()?.code(), Some(code))?;
    Ok(pid)
}

#[test]
fn conditions() {
    case("--where: only what fits, two of them both", || {
        let conditions = ["--where", "exit.code >= 7 && exit.code <= 8 || type == exec"];
        let runtime = ["--where", "exit.runtime_ns < 10s || exec.args ~ 'ctrace-test-*'"];
        let watch = Watch::processes(&[conditions, runtime].concat())?;
        let pids: Vec<u32> = (5..11).map(exit_with).collect::<Result<_>>()?;
        watch.fence()?;
        let ended = watch.stop()?;
        let seen: Vec<u32> =
            pids.into_iter().filter(|pid| ended.events.iter().any(|one| one.is_of(*pid))).collect();
        equal("shells that were seen", seen.len(), 2)?;
        let fits = |event: &Event| match event.u64("/exit/code") {
            Ok(code) => (7..=8).contains(&code),
            Err(_) => {
                event.get("/exec/args").is_some_and(|args| args.to_string().contains("ctrace"))
            }
        };
        let other = ended.events.iter().find(|event| !fits(event) && !event.is("lost"));
        equal("events that do not fit", other, None)
    });
}

#[test]
fn bad_conditions() {
    case("--where with a wrong field: exit 2, the place and the nearest name", || {
        for (condition, parts) in [
            ("exit.cod != 0", &["exit.code", "^^^"][..]),
            ("oom.limit_bytes > 1ms", &["oom.limit_bytes", "^^^"]),
            ("exit.code == ", &["value", "^"]),
        ] {
            let finished = finish(Command::new(ctrace()?).args(["watch", "--where", condition]))?;
            let finished = finished.expect_code(2)?;
            println!("{}", finished.stderr.trim_end());
            for part in parts {
                ensure!(finished.stderr.contains(part), "{part} is not in {}", finished.stderr);
            }
            no_panic(&[finished.stderr])?;
        }
        Ok(())
    });
}

#[test]
fn text_and_summary() {
    case(
        "text: a line each, the container first; at the end what happened to each container",
        || {
            let engine = docker::shared()?;
            let (reader, writer) = std::io::pipe()?;
            let mut command = Command::new(ctrace()?);
            command.args(["watch", "--events", "exec,exit:all"]);
            let watch = Watch::start_into(command, Stdio::from(writer))?.attached()?;
            let name = unique("text");
            let marked = marked::command(&name, 2);
            engine.run_to_end(&name, &[], &marked.each_ref().map(String::as_str))?;
            let reader = std::thread::spawn(move || {
                let mut text = String::new();
                let mut reader = reader;
                reader.read_to_string(&mut text).map(|_| text)
            });
            let ended = watch.stop()?;
            let text = reader.join().expect("no panic")?;
            let mine: Vec<&str> = text.lines().filter(|line| line.contains(&name)).collect();
            mine.iter().take(6).for_each(|line| println!("  {line}"));
            let marked = format!(" {} {name}", marked::PROGRAM);
            let true_lines = mine.iter().filter(|line| line.ends_with(&marked));
            equal("execs of the marked program", true_lines.count(), 2)?;
            for line in text.lines() {
                let mut words = line.split_whitespace();
                let time = words.next().context("an empty line")?;
                ensure!(
                    time.len() == 12 && time.matches(':').count() == 2,
                    "no time first: {line}"
                );
            }
            let of_container = |line: &&&str| line.split_whitespace().nth(1) == Some(name.as_str());
            let own: Vec<_> = mine.iter().filter(of_container).collect();
            // `(runtime)` may follow the name.
            let has_kind = |line: &str| line.contains("  exec  ") || line.contains("  exit  ");
            ensure!(own.len() >= 6 && own.iter().all(|line| has_kind(line)), "types: {own:#?}");
            ended.stderr.iter().for_each(|line| println!("  {line}"));
            let row = ended.stderr.iter().find(|line| line.starts_with(&name));
            let row = row.context("the container is not in the summary")?;
            let count = |kind: &str| own.iter().filter(|line| line.contains(kind)).count();
            let shown = format!("{} exec, {} exit", count("  exec  "), count("  exit  "));
            ensure!(row.contains(&shown), "{shown} is not in {row}");
            Ok(())
        },
    );
}
