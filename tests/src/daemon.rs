//! Daemons of the tests' own.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::facts::patience;
use crate::process::{Signal, signal};

/// One that ends with the test.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits for its socket.
    pub fn start(mut command: Command, directory: &Path, socket: &Path) -> Result<Daemon> {
        let log = directory.join("log");
        let output = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // SAFETY: between fork and exec there is one system call, which takes plain integers.
        unsafe {
            command.pre_exec(|| {
                // It ends with the test's thread, also when the tests are killed.
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let mut daemon = Daemon { child, log };
        let deadline = Instant::now() + patience(30);
        while !socket.exists() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{command:?} gave {status}:\n{}", daemon.log());
            }
            ensure!(Instant::now() < deadline, "{command:?} hangs:\n{}", daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = signal(self.child.id(), Signal::Term) {
            eprintln!("leaving a daemon: {error:#}");
            return;
        }
        // SIGTERM is what both daemons end by.
        let _ = self.child.wait();
    }
}
