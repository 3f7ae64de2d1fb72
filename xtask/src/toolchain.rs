//! Which cargo, compiler and linker build the eBPF object.
//!
//! `ctrace/build.rs` includes this file, so that what `setup` looks for and what the build uses
//! cannot drift apart. It depends on the standard library only.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// A cargo and its compiler whose sysroot holds the library sources that `-Z build-std` needs.
#[derive(Clone, Debug)]
pub struct Toolchain {
    pub cargo: PathBuf,
    pub rustc: PathBuf,
    pub llvm_major: u32,
}

/// The first toolchain with library sources: the active one, rustup's nightly, the system's.
pub fn find(cargo: &Path, rustc: &Path) -> Option<Toolchain> {
    if let Some(active) = with_sources(cargo, rustc) {
        return Some(active);
    }
    let nightly = rustup_which("cargo").zip(rustup_which("rustc"));
    if let Some(nightly) = nightly.and_then(|(cargo, rustc)| with_sources(&cargo, &rustc)) {
        return Some(nightly);
    }
    // Debian's rustc-web, cargo-web and rust-web-src.
    with_sources(Path::new("/usr/bin/cargo"), Path::new("/usr/bin/rustc"))
}

fn with_sources(cargo: &Path, rustc: &Path) -> Option<Toolchain> {
    let sysroot = PathBuf::from(output(rustc, &["--print", "sysroot"])?.trim());
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    if !core.exists() {
        return None;
    }
    let version = output(rustc, &["-vV"])?;
    Some(Toolchain {
        cargo: cargo.to_path_buf(),
        rustc: rustc.to_path_buf(),
        llvm_major: llvm_major(&version)?,
    })
}

fn rustup_which(tool: &str) -> Option<PathBuf> {
    let path = output(Path::new("rustup"), &["which", "--toolchain", "nightly", tool])?;
    Some(PathBuf::from(path.trim()))
}

/// The LLVM major version in what `rustc -vV` prints.
pub fn llvm_major(rustc_version: &str) -> Option<u32> {
    let version = rustc_version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

/// bpf-linker on the search path or where `cargo install` puts it.
pub fn bpf_linker() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

fn output(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
