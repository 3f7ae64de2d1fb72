//! bpf-linker, whose LLVM must not be older than the compiler's: it reads the compiler's bitcode.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{apt, rust};
use crate::{process, toolchain};

/// How many LLVM majors after the compiler's are looked for.
const NEWER_MAJORS: u32 = 3;

pub fn is_new_enough() -> bool {
    let Some(linker) = toolchain::bpf_linker() else { return false };
    let Some(needed) = rust::ebpf_toolchain().map(|toolchain| toolchain.llvm_major) else {
        return false;
    };
    // A linker with LLVM built in does not say which one it is. Trust it: a build shows.
    linked_llvm(&linker).is_none_or(|major| major >= needed)
}

pub fn install() -> Result<()> {
    let needed = rust::ebpf_toolchain().context("rust-src is needed first")?.llvm_major;
    let major = available_llvm(needed)?;
    apt::install([
        "g++",
        "libc6-dev",
        &format!("llvm-{major}-dev"),
        &format!("libpolly-{major}-dev"),
        "libzstd-dev",
        "zlib1g-dev",
    ])?;
    println!("building   bpf-linker with LLVM {major}: about a minute");
    let mut cargo = process::cargo();
    cargo
        .args(["install", "bpf-linker", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{major}")])
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"))
        .env_remove("CARGO_TARGET_DIR");
    process::capture(&mut cargo).map(drop)
}

fn available_llvm(needed: u32) -> Result<u32> {
    for major in needed..=needed + NEWER_MAJORS {
        if apt::has_package(&format!("llvm-{major}-dev"))? {
            return Ok(major);
        }
    }
    bail!(
        "the compiler's LLVM is {needed}, and this Debian has no llvm-{needed}-dev or newer; \
         use a Rust toolchain with an older LLVM"
    )
}

/// The major version of the LLVM library that a program is linked with.
fn linked_llvm(program: &Path) -> Option<u32> {
    let libraries = process::capture(Command::new("ldd").arg(program)).ok()?;
    llvm_in(&libraries)
}

fn llvm_in(libraries: &str) -> Option<u32> {
    let name = libraries.lines().find_map(|line| line.trim().strip_prefix("libLLVM"))?;
    let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_from_ldd() {
        let cases = [
            ("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)", Some(22)),
            ("\tlibc.so.6 => /lib/libc.so.6\n\tlibLLVM-17.so.1 => /lib/x", Some(17)),
            ("\tlibc.so.6 => /lib/libc.so.6", None),
            ("", None),
        ];
        for (libraries, expected) in cases {
            assert_eq!(llvm_in(libraries), expected, "{libraries}");
        }
    }

    #[test]
    fn llvm_major_from_rustc() {
        let version = "rustc 1.95.0\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(toolchain::llvm_major(version), Some(22));
        assert_eq!(toolchain::llvm_major("rustc 1.95.0"), None);
    }
}
