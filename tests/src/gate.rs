//! Holds a container's process back until the test says go.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::names::TempDir;

/// A directory with a fifo that the container's shell reads before it goes on.
#[derive(Debug)]
pub struct Gate {
    directory: TempDir,
    fifo: File,
}

impl Gate {
    /// Where containers have [`Gate::directory`] mounted.
    pub const MOUNT: &str = "/gate";

    pub fn new() -> Result<Self> {
        let directory = TempDir::new("gate")?;
        let path = directory.path().join("go");
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the name ends in 0 and lives for the call.
        if unsafe { libc::mkfifo(name.as_ptr(), 0o600) } != 0 {
            return Err(io::Error::last_os_error()).context("mkfifo");
        }
        // Both ways, so that neither side waits for the other to open it.
        let fifo = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Gate { directory, fifo })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A container's command that becomes `then` once the gate is open, with the same pid.
    pub fn command(then: &str) -> [String; 3] {
        let script = format!("read go <{}/go && exec {then}", Gate::MOUNT);
        ["/bin/sh".to_owned(), "-c".to_owned(), script]
    }

    pub fn open(&mut self) -> Result<()> {
        Ok(self.fifo.write_all(b"go\n")?)
    }
}
