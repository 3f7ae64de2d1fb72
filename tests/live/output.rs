//! Where the events go when their reader is gone or cannot take them.

use std::fs::OpenOptions;
use std::io;
use std::process::Stdio;

use anyhow::ensure;
use ctrace_tests::case::case;
use ctrace_tests::facts::patience;
use ctrace_tests::process::readable;
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
