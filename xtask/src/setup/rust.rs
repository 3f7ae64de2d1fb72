//! Parts of the Rust toolchain.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::apt;
use crate::{
    process,
    toolchain::{self, Toolchain},
};

/// The toolchain that builds the eBPF object, if one has the library sources.
pub fn ebpf_toolchain() -> Option<Toolchain> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    toolchain::find(Path::new(&cargo), Path::new(&rustc))
}

pub fn sources_found() -> bool {
    ebpf_toolchain().is_some()
}

pub fn install_sources() -> Result<()> {
    if process::find_program("rustup").is_none() {
        return apt::install(["rustc-web", "cargo-web", "rust-web-src"]);
    }
    add_component("rust-src").or_else(|error| {
        process::capture(Command::new("rustup").args([
            "component",
            "add",
            "rust-src",
            "--toolchain",
            "nightly",
        ]))
        .map(drop)
        .with_context(|| format!("{error:#}; with nightly"))
    })
}

pub fn rustfmt_found() -> bool {
    process::succeeds(process::cargo().args(["fmt", "--version"]))
}

pub fn install_rustfmt() -> Result<()> {
    add_component("rustfmt")
}

pub fn clippy_found() -> bool {
    process::succeeds(process::cargo().args(["clippy", "--version"]))
}

pub fn install_clippy() -> Result<()> {
    add_component("clippy")
}

fn add_component(name: &str) -> Result<()> {
    process::capture(Command::new("rustup").args(["component", "add", name])).map(drop)
}
