//! Unpacked kernels in the cache.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    kernels::{self, Choice, Series},
    mirror::Mirror,
};
use crate::{process, workspace};

/// A kernel that can be booted.
#[derive(Debug)]
pub struct Kernel {
    pub release: String,
    pub image: PathBuf,
}

/// The kernel of a series: from the cache, or from the mirror when it is not there or `update`
/// asks for a newer one.
pub fn fetch(series: &Series, update: bool) -> Result<Kernel> {
    if let (false, Some(kernel)) = (update, cached(series)?) {
        return Ok(kernel);
    }
    let directory = series_dir(series)?;
    fs::create_dir_all(&directory)?;
    let mirror = Mirror::find()?;
    let arch = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let list = mirror.packages(series, arch.trim(), &directory)?;
    let choice = kernels::choose(series, &list, arch.trim())
        .with_context(|| format!("{} has no kernel {}", series.suite, series.name))?;
    if !image_path(&directory.join(&choice.release), &choice.release).exists() {
        unpack(series, &mirror, &choice, &directory)?;
    }
    cached(series)?.with_context(|| format!("{} is not in the cache", choice.release))
}

/// The newest kernel of a series in the cache.
pub fn cached(series: &Series) -> Result<Option<Kernel>> {
    let Ok(entries) = fs::read_dir(series_dir(series)?) else { return Ok(None) };
    let newest = entries
        .filter_map(|entry| {
            let directory = entry.ok()?.path();
            let release = directory.file_name()?.to_str()?.to_owned();
            let image = image_path(&directory, &release);
            image.exists().then_some(Kernel { release, image })
        })
        .max_by_key(|kernel| kernels::numbers(&kernel.release));
    Ok(newest)
}

fn series_dir(series: &Series) -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join("kernels").join(series.name))
}

fn image_path(directory: &Path, release: &str) -> PathBuf {
    directory.join("boot").join(format!("vmlinuz-{release}"))
}

/// Unpacks beside the final place and renames, so that what is in the cache is complete.
fn unpack(series: &Series, mirror: &Mirror, choice: &Choice, directory: &Path) -> Result<()> {
    let partial = directory.join("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(partial.join("boot"))?;
    let file = directory.join("package.deb");
    for package in &choice.packages {
        println!("downloading {}", package.name);
        mirror.download(series.archive, package, &file)?;
        process::capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&partial))?;
    }
    fs::remove_file(&file)?;
    arrange(&partial, &choice.release)?;
    fs::rename(&partial, directory.join(&choice.release))?;
    Ok(())
}

/// Gives every kernel the layout that vng looks for: `boot/vmlinuz-RELEASE` and
/// `lib/modules/RELEASE` with its index.
fn arrange(tree: &Path, release: &str) -> Result<()> {
    let in_modules = tree.join("usr/lib/modules").join(release).join("vmlinuz");
    if in_modules.exists() {
        fs::rename(&in_modules, image_path(tree, release))?;
    }
    ensure!(image_path(tree, release).exists(), "no image in the packages of {release}");
    if !tree.join("lib").exists() {
        symlink("usr/lib", tree.join("lib"))?;
    }
    let depmod = process::find_program("depmod").context("depmod is missing")?;
    process::capture(Command::new(depmod).arg("-b").arg(tree).arg(release)).map(drop)
}
