//! Builds the eBPF programs from source and leaves the object in `OUT_DIR/ctrace.ebpf`, so that
//! object and binary cannot drift apart. Include it with
//! `aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ctrace.ebpf"))`.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// What the object is made of, relative to the workspace.
const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "ctrace-common/Cargo.toml",
    "ctrace-common/src",
    "ctrace-ebpf/Cargo.toml",
    "ctrace-ebpf/src",
];

/// Settings of the outer cargo (wrappers of clippy, flags for the host) that must not reach the
/// compiler of the eBPF programs.
const LEAKING: &[&str] = &[
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = path_variable("CARGO_MANIFEST_DIR")?.join("..");
    let out_dir = path_variable("OUT_DIR")?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }

    let toolchain = toolchain::find(&path_variable("CARGO")?, &path_variable("RUSTC")?)
        .ok_or("the Rust library sources (rust-src) are missing: `cargo xtask setup` mends it")?;
    let linker =
        toolchain::bpf_linker().ok_or("bpf-linker is missing: `cargo xtask setup` mends it")?;
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };

    // Its own target directory: cargo holds a lock on the outer one while this script runs.
    let target_dir = out_dir.join("ebpf");
    let mut cargo = cargo_build(&toolchain, &linker, target)?;
    cargo.current_dir(&workspace).arg("--target-dir").arg(&target_dir);
    let output = cargo.output().map_err(|error| format!("cannot start {cargo:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{messages}");
        return Err(format!(
            "the eBPF programs do not build (toolchain with LLVM {}); the compiler's messages are \
             below. If they are about bpf-linker or LLVM, `cargo xtask setup` may mend it",
            toolchain.llvm_major
        ));
    }

    let object = target_dir.join(target).join("release/ctrace");
    let embedded = out_dir.join("ctrace.ebpf");
    fs::copy(&object, &embedded)
        .map_err(|error| format!("cannot copy {}: {error}", object.display()))?;
    Ok(())
}

fn cargo_build(
    toolchain: &toolchain::Toolchain,
    linker: &Path,
    target: &str,
) -> Result<Command, String> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let linker = linker.to_str().ok_or("the path of bpf-linker is not UTF-8")?;
    let rustflags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        format!("-Clinker={linker}"),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut cargo = Command::new(&toolchain.cargo);
    cargo.args(["build", "--release", "--locked", "--package", "ctrace-ebpf"]);
    cargo.args(["-Z", "build-std=core", "--target", target]);
    for variable in LEAKING {
        cargo.env_remove(variable);
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"))
        // Allows `-Z` on a stable toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        // With less debug information the object's BTF has invalid function types and the
        // kernel refuses it.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        // bpf-linker itself links the whole program.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    Ok(cargo)
}

fn path_variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {name}"))
}
