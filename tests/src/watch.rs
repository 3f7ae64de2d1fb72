//! A running `ctrace watch`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::run;
use crate::event::Event;
use crate::facts::{ctrace, patience};
use crate::marked;
use crate::names::unique;
use crate::process::{Signal, Stopped, signal};
use crate::report::Report;

/// What was read so far.
#[derive(Debug, Default)]
struct Output {
    events: Vec<Event>,
    /// Lines that are no events, with the reason.
    bad: Vec<String>,
    stderr: Vec<String>,
    /// Pipes that are still open.
    open: usize,
}

#[derive(Debug, Default)]
struct Shared {
    output: Mutex<Output>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Output)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// The program while it runs; killed by its pid when dropped.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// What it left.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub events: Vec<Event>,
    pub stderr: Vec<String>,
}

impl Watch {
    /// Starts `ctrace watch --events oom -o json` and more arguments, and waits until every hook
    /// is in place.
    pub fn oom(arguments: &[&str]) -> Result<Self> {
        Watch::start(watch_oom(&["-o", "json"], arguments)?)?.attached()
    }

    /// Starts `ctrace watch -o json` and more arguments, and waits until every hook is in place.
    pub fn by_default(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(ctrace()?);
        command.args(["watch", "-o", "json"]).args(arguments);
        Watch::start(command)?.attached()
    }

    /// Starts `ctrace watch --events exec,exit:all -o json` and more arguments, and waits until every
    /// hook is in place.
    pub fn processes(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(ctrace()?);
        command.args(["watch", "--events", "exec,exit:all", "-o", "json"]).args(arguments);
        Watch::start(command)?.attached()
    }

    /// Starts `ctrace watch -o json --events` with these and more arguments, and waits until every
    /// hook is in place.
    pub fn of(events: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(ctrace()?);
        command.args(["watch", "-o", "json", "--events", events]).args(arguments);
        Watch::start(command)?.attached()
    }

    /// Starts a command whose standard output is events.
    pub fn start(command: Command) -> Result<Self> {
        Watch::start_into(command, Stdio::piped())
    }

    /// Starts a command whose standard output goes elsewhere: there will be no events.
    pub fn start_into(mut command: Command, stdout: Stdio) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let shared = Arc::new(Shared::default());
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            readers.push(reader(stdout, &shared, |output, line| {
                match std::str::from_utf8(&line).map_err(Into::into).and_then(Event::parse) {
                    Ok(event) => output.events.push(event),
                    Err(error) => output.bad.push(format!("{error:#}")),
                }
            }));
        }
        readers.push(reader(child.stderr.take().expect("piped"), &shared, |output, line| {
            output.stderr.push(String::from_utf8_lossy(&line).into_owned());
        }));
        Ok(Watch { child, shared, readers, ended: None })
    }

    /// Waits for the `attached:` line.
    pub fn attached(self) -> Result<Self> {
        self.until(patience(20), "the attached: line", |output| {
            output.stderr.iter().any(|line| line.starts_with("attached:")).then_some(())
        })?;
        Ok(self)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Holds it back for a time, as a busy machine would.
    pub fn stall(&self, time: Duration) -> Result<()> {
        self.stall_while(|| {
            thread::sleep(time);
            Ok(())
        })
    }

    /// Holds it back while something else is done.
    pub fn stall_while<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let stopped = self.stop_for_now()?;
        let done = work();
        stopped.go_on()?;
        done
    }

    /// Stops it by SIGSTOP until the answer is told to go on or dropped.
    pub fn stop_for_now(&self) -> Result<Stopped> {
        Stopped::new(self.pid())
    }

    /// How many events there were so far.
    pub fn seen(&self) -> usize {
        self.shared.lock().events.len()
    }

    /// Waits until all that happened before has been seen: for a process of the host that is
    /// started now.
    pub fn fence(&self) -> Result<()> {
        let mark = unique("fence");
        run(Command::new(marked::PROGRAM).arg(&mark))?;
        self.event("the fence", |event| marked::mark_of(event) == Some(&mark)).map(drop)
    }

    /// Waits for an event.
    pub fn event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<Event> {
        self.until(patience(10), what, |output| {
            output.events.iter().find(|event| wanted(event)).cloned()
        })
    }

    /// Waits for the OOM kill of a process.
    pub fn oom_kill(&self, pid: u32) -> Result<Event> {
        self.event(&format!("the oom_kill of {pid}"), |event| event.is_oom_kill_of(pid))
    }

    /// Waits until the events so far satisfy `enough`; gives them.
    pub fn events(
        &self,
        limit: Duration,
        what: &str,
        enough: impl Fn(&[Event]) -> bool,
    ) -> Result<Vec<Event>> {
        self.until(limit, what, |output| enough(&output.events).then(|| output.events.clone()))
    }

    /// Waits for a line on stderr that has this text.
    pub fn stderr_line(&self, part: &str) -> Result<String> {
        self.until(patience(10), &format!("`{part}` on stderr"), |output| {
            output.stderr.iter().find(|line| line.contains(part)).cloned()
        })
    }

    fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        found: impl Fn(&Output) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut output = self.shared.lock();
        loop {
            ensure!(output.bad.is_empty(), "lines that are no events: {:#?}", output.bad);
            if let Some(found) = found(&output) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || output.open == 0 {
                let why = if output.open == 0 { "before ctrace ended" } else { "in time" };
                bail!("{what} did not come {why}; {}", tail(&output));
            }
            (output, _) = self
                .shared
                .changed
                .wait_timeout(output, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends it by SIGTERM: it has to exit with 0 and say how many events there were.
    pub fn stop(self) -> Result<Ended> {
        signal(self.pid(), Signal::Term)?;
        self.ended(0)
    }

    /// Waits until it has ended by itself with this exit code.
    pub fn ended(mut self, code: i32) -> Result<Ended> {
        // Its pipes close when it exits: no polling for the status.
        let deadline = Instant::now() + patience(20);
        let mut output = self.shared.lock();
        while output.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "ctrace did not end; {}", tail(&output));
            (output, _) = self
                .shared
                .changed
                .wait_timeout(output, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(output);
        let status = self.child.wait()?;
        self.ended = Some(status);
        let mut output = self.shared.lock();
        ensure!(status.code() == Some(code), "ctrace gave {status}, not {code}; {}", tail(&output));
        ensure!(output.bad.is_empty(), "lines that are no events: {:#?}", output.bad);
        no_panic(&output.stderr)?;
        Ok(Ended {
            status,
            events: std::mem::take(&mut output.events),
            stderr: std::mem::take(&mut output.stderr),
        })
    }
}

impl Ended {
    /// The summary's line that has all these words.
    pub fn summary(&self, words: &[&str]) -> Result<&str> {
        let has = |line: &&String| {
            let split = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let known: Vec<&str> = split.collect();
            words.iter().all(|word| known.contains(word))
        };
        let line = self.stderr.iter().rfind(has);
        let line = line.with_context(|| format!("no line with {words:?} in {:#?}", self.stderr))?;
        println!("  summary: {line}");
        Ok(line)
    }

    /// What happened to each container and outside of them, as `-o json` has it.
    pub fn report(&self) -> Result<Report> {
        Report::of(&self.stderr)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended meanwhile; its id stays its own until it is waited for.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// The command `ctrace watch --events oom` with more arguments.
pub fn watch_oom(output: &[&str], arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(ctrace()?);
    command.args(["watch", "--events", "oom"]).args(output).args(arguments);
    Ok(command)
}

/// Fails on a Rust panic or backtrace in what ctrace said.
pub fn no_panic(stderr: &[String]) -> Result<()> {
    let bad = |line: &&String| line.contains("panicked") || line.contains("stack backtrace");
    if let Some(line) = stderr.iter().find(bad) {
        bail!("ctrace panicked: {line}\n{}", stderr.join("\n"));
    }
    Ok(())
}

fn tail(output: &Output) -> String {
    let last = output.events.iter().rev().take(3).map(|event| format!("\n  {event}"));
    format!(
        "{} events, the last:{}\nstderr:\n  {}",
        output.events.len(),
        last.collect::<String>(),
        output.stderr.join("\n  ")
    )
}

fn reader(
    from: impl Read + Send + 'static,
    shared: &Arc<Shared>,
    mut line: impl FnMut(&mut Output, Vec<u8>) + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    shared.lock().open += 1;
    thread::spawn(move || {
        for bytes in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            shared.update(|output| line(output, bytes));
        }
        shared.update(|output| output.open -= 1);
    })
}
