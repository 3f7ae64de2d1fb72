//! Debian packages.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use crate::process;

/// Installs packages; reads the package lists anew only when the ones at hand do not serve.
pub fn install<'a>(packages: impl IntoIterator<Item = &'a str>) -> Result<()> {
    ensure!(process::find_program("apt-get").is_some(), "not a Debian system: no apt-get");
    let mut words = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
    words.extend(packages);
    if process::capture(quiet(&mut process::as_root(&words)?)).is_ok() {
        return Ok(());
    }
    update()?;
    process::capture(quiet(&mut process::as_root(&words)?)).map(drop)
}

/// Reads the package lists anew.
pub fn update() -> Result<()> {
    process::capture(quiet(&mut process::as_root(&["apt-get", "update"])?)).map(drop)
}

/// Whether a package can be installed, from lists that are not empty.
pub fn has_package(name: &str) -> Result<bool> {
    let lists = fs::read_dir("/var/lib/apt/lists").map(|lists| lists.count()).unwrap_or(0);
    // An empty cache still holds `lock`, `partial` and `auxfiles`.
    if lists <= 3 {
        update()?;
    }
    Ok(process::succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", name])))
}

fn quiet(command: &mut Command) -> &mut Command {
    command.env("DEBIAN_FRONTEND", "noninteractive")
}
