//! Commands that run to their end, within a time.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::facts::{ctrace, patience, program};
use crate::names::TempDir;
use crate::process::{Signal, signal};

/// What a command left.
#[derive(Debug)]
pub struct Finished {
    /// Program and arguments, for messages.
    pub what: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// Fails unless the command ended with this exit code.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.status.code() != Some(code) {
            bail!("{}", self.report(&format!("expected exit code {code}")));
        }
        Ok(self)
    }

    /// Standard output as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.stdout).with_context(|| format!("output of {}", self.what))
    }

    /// Everything that is known, for a failure.
    pub fn report(&self, problem: &str) -> String {
        let mut report = format!("{problem}: {} gave {}", self.what, self.status);
        let stdout = String::from_utf8_lossy(&self.stdout);
        for (name, text) in [("stdout", stdout.as_ref()), ("stderr", self.stderr.as_str())] {
            if !text.trim().is_empty() {
                let _ = write!(report, "\n{name}: {}", text.trim_end());
            }
        }
        report
    }
}

/// Runs a command to its end, whatever its exit code.
pub fn finish(command: &mut Command) -> Result<Finished> {
    let what = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {what}"))?;
    finish_child(child, what, patience(60))
}

/// Runs a copy of ctrace with these arguments as an ordinary user, to whom nothing is allowed.
pub fn finish_unprivileged(args: &[&str]) -> Result<Finished> {
    // Wherever the program under test is, nobody can reach this copy.
    let directory = TempDir::new("unprivileged")?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let copy = directory.path().join("ctrace");
    fs::copy(ctrace()?, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    let mut command = Command::new(program("setpriv")?);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    finish(command.arg(&copy).args(args))
}

/// Runs a command that has to succeed; gives its trimmed output.
pub fn run(command: &mut Command) -> Result<String> {
    Ok(finish(command)?.expect_code(0)?.text()?.trim().to_owned())
}

/// Waits for a child whose output is piped; kills it when it takes longer than `limit`.
pub fn finish_child(mut child: Child, what: String, limit: Duration) -> Result<Finished> {
    let stdout = child.stdout.take().map(drain);
    let stderr = child.stderr.take().map(drain);
    let pid = child.id();
    let (sender, ended) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let status = child.wait();
        // The receiver is there until this thread is joined.
        let _ = sender.send(());
        status
    });
    let late = ended.recv_timeout(limit).is_err();
    if late {
        signal(pid, Signal::Kill)?;
    }
    let status = waiter.join().expect("the waiting thread does not panic")?;
    let collect = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        reader.map(|r| r.join().expect("the reading thread does not panic")).unwrap_or_default()
    };
    let stdout = collect(stdout);
    let stderr = String::from_utf8_lossy(&collect(stderr)).into_owned();
    let finished = Finished { what, status, stdout, stderr };
    if late {
        bail!("{}", finished.report(&format!("not done within {limit:?}")));
    }
    Ok(finished)
}

fn drain(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // An unreadable pipe ends the output; what came before is kept.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
