//! virtme-ng, from PyPI.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt;
use crate::{process, workspace};

/// The `vng` that can be started: on the search path or in an environment of its own.
///
/// Being on the path is not enough: it may be a pyenv shim of a Python without the package.
pub fn vng() -> Option<PathBuf> {
    let own = workspace::cache_dir().ok().map(|cache| cache.join("python/bin/vng"));
    std::iter::once(PathBuf::from("vng")).chain(own).find(|candidate| works(candidate))
}

/// The search path for `vng`, which starts its helpers by name: in an environment of its own they
/// lie beside it.
pub fn search_path(vng: &Path) -> Result<OsString> {
    let beside = vng.parent().filter(|directory| !directory.as_os_str().is_empty());
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = beside.map(PathBuf::from).into_iter().chain(env::split_paths(&path));
    env::join_paths(directories).context("the search path of vng")
}

pub fn vng_works() -> bool {
    vng().is_some()
}

/// With the Python at hand, or, where that is managed by the distribution, in an environment of
/// its own.
pub fn install_vng() -> Result<()> {
    if process::succeeds(Command::new("python3").args(["-m", "pip", "install", "virtme-ng"])) {
        rehash_pyenv();
        if vng_works() {
            return Ok(());
        }
    }
    let environment = workspace::cache_dir()?.join("python");
    if !create_environment(&environment) {
        apt::install(["python3", "python3-venv"])?;
        if !create_environment(&environment) {
            process::capture(
                Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&environment),
            )
            .context("no Python environment")?;
        }
    }
    process::capture(Command::new(environment.join("bin/pip")).args(["install", "virtme-ng"]))
        .map(drop)
}

fn create_environment(directory: &Path) -> bool {
    process::succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory))
}

/// pyenv makes a shim for a new program only when asked.
fn rehash_pyenv() {
    process::succeeds(Command::new("pyenv").arg("rehash"));
}

fn works(vng: &Path) -> bool {
    process::succeeds(Command::new(vng).arg("--version"))
}
