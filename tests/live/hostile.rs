//! Names that try to break the output: of processes and of cgroups.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::facts::patience;
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::readable;
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::{Watch, watch_oom};

use crate::MIB;

/// Clears the screen, starts a line, ends a string, and is no UTF-8: 15 bytes.
const COMM: &[u8] = b"a\x1b[2J\nb\"c\\d\xff\x7f\xc2\x9b";
/// A cgroup's name may have anything but a line feed and a slash.
const CGROUP: &[u8] = b"\x1b[31m\"q\\ \t\r\xff\x7f\xc2\x9b {}";

/// Kills a process with a hostile name in a cgroup with a hostile name.
fn kill_hostile() -> Result<(u32, OsString)> {
    let mut name = unique("hostile").into_bytes();
    name.extend_from_slice(CGROUP);
    let cgroup = Cgroup::named(&OsString::from_vec(name))?.limit(8 * MIB)?;
    let path = cgroup.path();
    let victim = Plan::new(COMM).spawn(Some(&cgroup))?;
    let pid = victim.pid();
    victim.eat_until_killed()?;
    Ok((pid, path))
}

#[test]
fn in_json() {
    case("hostile names in JSON: one valid object a line, nothing lost of them", || {
        let watch = Watch::oom(&[])?;
        let (pid, path) = kill_hostile()?;
        // Each line was parsed on its way here.
        let event = watch.oom_kill(pid)?;
        let comm = event.str("/process/comm")?;
        ensure!(comm.starts_with("a\x1b[2J\nb\"c\\d"), "process.comm: {comm:?}");
        println!("  process.comm: {comm:?}");
        let shown = event.str("/cgroup/path")?;
        println!("  cgroup.path: {shown:?}");
        let valid = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let start = valid.split('\u{fffd}').next().unwrap_or_default();
        ensure!(start.contains("\x1b[31m\"q\\ \t\r"), "the test's own name: {start:?}");
        ensure!(shown.starts_with(start), "cgroup.path: {shown:?}, not {start:?}…");
        ensure!(event.str("/oom/oom_cgroup")? == shown, "oom.oom_cgroup is shown differently");
        watch.stop().map(drop)
    });
}

#[test]
fn in_text() {
    case("hostile names in text: no control characters but line feeds", || {
        let (mut reader, writer) = io::pipe()?;
        let watch = Watch::start_into(watch_oom(&[], &[])?, Stdio::from(writer))?.attached()?;
        let (pid, _) = kill_hostile()?;
        // The kill of a harmless process after it: all of the hostile one's text is before.
        let fence = crate::cli::kill_one()?;
        let deadline = Instant::now() + patience(10);
        let mut bytes = Vec::new();
        while !has_number(&bytes, fence) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(readable(&reader, left)?, "no text: {:?}", String::from_utf8_lossy(&bytes));
            let mut part = [0; 4096];
            let length = reader.read(&mut part)?;
            ensure!(length > 0, "the text ended: {:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&part[..length]);
        }
        ensure!(has_number(&bytes, pid), "no text about the hostile victim");
        let text = std::str::from_utf8(&bytes).context("the text is no UTF-8")?;
        println!("{text}");
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        equal("control characters", control, None)?;
        let ended = watch.stop()?;
        let control = ended.stderr.iter().flat_map(|line| line.chars()).find(|c| c.is_control());
        equal("control characters on stderr", control, None)
    });
}

fn has_number(text: &[u8], number: u32) -> bool {
    let number = number.to_string();
    text.split(|byte| !byte.is_ascii_digit()).any(|word| word == number.as_bytes())
}
