//! A busybox root file system: container enough, and no registry is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::cleanup::at_exit;
use crate::command::run;
use crate::facts::program;
use crate::names::{TempDir, unique};

/// The root file system as a directory and as a tar file.
#[derive(Debug)]
pub struct Image {
    /// What the engines call it.
    pub name: String,
    directory: TempDir,
}

impl Image {
    /// Made once for all tests; removed when they end.
    pub fn shared() -> Result<Arc<Image>> {
        static SHARED: Mutex<Option<Arc<Image>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = &*shared {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(Image::make()?);
        at_exit(|| drop(SHARED.lock().unwrap_or_else(PoisonError::into_inner).take()));
        *shared = Some(Arc::clone(&image));
        Ok(image)
    }

    fn make() -> Result<Image> {
        let busybox = program("busybox")?;
        let directory = TempDir::new("image")?;
        let root = directory.path().join("root");
        for name in ["bin", "dev", "etc", "gate", "proc", "sys", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
        fs::copy(&busybox, root.join("bin/busybox"))
            .with_context(|| format!("copying {}", busybox.display()))?;
        for applet in run(Command::new(&busybox).arg("--list"))?.lines() {
            if applet != "busybox" {
                symlink("busybox", root.join("bin").join(applet))?;
            }
        }
        let tar = directory.path().join("image.tar");
        run(Command::new(program("tar")?).arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
        Ok(Image { name: format!("{}:1", unique("busybox")), directory })
    }

    /// Where it is made; goes with the image.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn tar(&self) -> PathBuf {
        self.directory.path().join("image.tar")
    }
}
