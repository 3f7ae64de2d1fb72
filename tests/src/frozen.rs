//! A file system of its own that can be frozen.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::case::cannot;
use crate::command::run;
use crate::facts::program;
use crate::names::TempDir;

/// An ext4 on a loop device; thawed, unmounted and removed on drop.
#[derive(Debug)]
pub struct FileSystem {
    /// Where it is mounted.
    at: PathBuf,
    is_frozen: bool,
    /// Dropped last: it holds the image and the mount point.
    _directory: TempDir,
}

impl FileSystem {
    pub fn new() -> Result<Self> {
        // Built as a module in some kernels.
        if !Path::new("/dev/loop-control").exists() {
            run(Command::new(program("modprobe")?).arg("loop"))
                .map_err(|_| cannot("no loop devices"))?;
        }
        let directory = TempDir::new("frozen")?;
        let (image, at) = (directory.path().join("image"), directory.path().join("mnt"));
        File::create(&image)?.set_len(64 << 20)?;
        run(Command::new(program("mkfs.ext4")?).args(["-q", "-F"]).arg(&image))?;
        std::fs::create_dir(&at)?;
        run(Command::new(program("mount")?).args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(FileSystem { at, is_frozen: false, _directory: directory })
    }

    pub fn path(&self) -> &Path {
        &self.at
    }

    /// From now on who writes is blocked.
    pub fn freeze(&mut self) -> Result<()> {
        self.is_frozen = true;
        run(Command::new(program("fsfreeze")?).arg("--freeze").arg(&self.at)).map(drop)
    }

    pub fn thaw(&mut self) -> Result<()> {
        run(Command::new(program("fsfreeze")?).arg("--unfreeze").arg(&self.at))?;
        self.is_frozen = false;
        Ok(())
    }

    /// Lazily: who wrote may not have gone yet.
    fn unmount(&self) -> Result<()> {
        let path = CString::new(self.at.as_os_str().as_encoded_bytes())?;
        // SAFETY: the path ends in 0 and lives for the call.
        let result = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        let error = io::Error::last_os_error();
        ensure!(result == 0, "unmounting {}: {error}", self.at.display());
        Ok(())
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let thawed = if self.is_frozen { self.thaw() } else { Ok(()) };
        if let Err(error) = thawed.and_then(|()| self.unmount()).context("a frozen file system") {
            eprintln!("leaving {}: {error:#}", self.at.display());
        }
    }
}
