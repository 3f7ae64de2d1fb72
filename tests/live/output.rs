//! Where the events go when their reader is gone or cannot take them.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use ctrace_tests::case::case;
use ctrace_tests::command::run;
use ctrace_tests::facts::{ctrace, patience};
use ctrace_tests::process::{Signal, readable, signal};
use ctrace_tests::watch::{Watch, watch_oom};

use crate::cli::kill_one;

#[test]
fn reader_that_goes_away() {
    for output in ["json", "text"] {
        case(&format!("a closed pipe ends it with exit 0, -o {output}"), || {
            let (reader, writer) = io::pipe()?;
            let command = watch_oom(&["-o", output], &[])?;
            let watch = Watch::start_into(command, Stdio::from(writer))?.attached()?;
            kill_one()?;
            ensure!(readable(&reader, patience(10))?, "no event in the pipe");
            drop(reader);
            // This one has nowhere to go.
            kill_one()?;
            let ended = watch.ended(0)?;
            let said = ended.stderr.iter().any(|line| line.to_lowercase().contains("broken pipe"));
            println!("  exit 0, broken pipe on stderr: {said}");
            ensure!(!said, "a reader that has enough is no error");
            Ok(())
        });
    }
}

#[test]
fn full_disk() {
    for output in ["json", "text"] {
        case(&format!("a full disk is an error, -o {output}"), || {
            let full = OpenOptions::new().write(true).open("/dev/full")?;
            let command = watch_oom(&["-o", output], &[])?;
            let watch = Watch::start_into(command, Stdio::from(full))?.attached()?;
            kill_one()?;
            let ended = watch.ended(1)?;
            let line = ended.stderr.iter().find(|line| line.contains("No space left"));
            println!("  {line:?}");
            ensure!(line.is_some(), "the reason is not said: {:#?}", ended.stderr);
            Ok(())
        });
    }
}

#[test]
fn reader_that_stalls_to_the_end() {
    case("a reader that takes nothing until the end: what did not fit is in the summary", || {
        // More than wait for the writer and fit the pipe.
        const EXITS: u64 = 6000;
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(ctrace()?);
        command.args(["watch", "--events", "exit:all", "-o", "json"]);
        let watch = Watch::start_into(command, Stdio::from(writer))?.attached()?;
        let script = "i=0; while [ $i -lt $1 ]; do (:); i=$((i+1)); done";
        run(Command::new("/bin/sh").args(["-c", script, "sh", &EXITS.to_string()]))?;
        signal(watch.pid(), Signal::Term)?;
        // Nothing tells from outside that it has come to its end but for the writer. Were this too
        // short, the losses would be in the stream as well.
        thread::sleep(Duration::from_secs(1));
        let lines = thread::spawn(move || BufReader::new(reader).lines().count());
        let ended = watch.ended(0)?;
        let lines = u64::try_from(lines.join().expect("no panic"))?;
        let line = ended.summary(&["lost", "event", "output"])?;
        let lost = line.split("lost: ").nth(1).and_then(|rest| rest.split(' ').next());
        let lost: u64 = lost.unwrap_or_default().parse()?;
        println!("  written {lines}, lost {lost}");
        ensure!(lines + lost >= EXITS, "{lines} written and {lost} lost of {EXITS}");
        Ok(())
    });
}
