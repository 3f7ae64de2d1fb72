//! `test`: everything that a change must pass.

use std::{process::Command, time::Instant};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::{
    live::{self, LiveTests},
    process,
    setup::{self, Scope},
    vm, workspace,
};

/// The kernel that is booted besides the running one; `cargo xtask vm` has the others.
const VM_KERNEL: &str = "6.12";
/// Crates for this host; the eBPF crate is built for its own target only.
const HOST_CRATES: &[&str] = &["--workspace", "--exclude", "ctrace-ebpf"];
const DENY_WARNINGS: &[&str] = &["--", "-D", "warnings"];

#[derive(clap::Args)]
pub struct Args {
    /// Run these parts only.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Lint,
    Unit,
    Live,
    Vm,
}

struct Step {
    part: Part,
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { part: Part::Lint, name: "format", run: format },
    Step { part: Part::Lint, name: "lints of the host crates", run: clippy },
    Step { part: Part::Lint, name: "lints of the eBPF crate", run: clippy_ebpf },
    Step { part: Part::Lint, name: "documentation", run: documentation },
    Step { part: Part::Unit, name: "unit tests", run: unit },
    Step { part: Part::Live, name: "live tests on this kernel", run: live },
    Step { part: Part::Vm, name: "live tests in a virtual machine", run: virtual_machine },
];

/// Runs all steps, then names those that failed.
pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let is_asked_for = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let steps: Vec<&Step> = STEPS.iter().filter(|step| is_asked_for(step.part)).collect();
    let mut failed = Vec::new();
    if let Err(error) = prepare(&steps) {
        println!("== set-up: {error:#}");
        failed.push("set-up");
    }
    for step in steps {
        println!("== {} (after {} s)", step.name, started.elapsed().as_secs());
        if let Err(error) = (step.run)() {
            println!("== {}: {error:#}", step.name);
            failed.push(step.name);
        }
    }
    println!("== end after {} s", started.elapsed().as_secs());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    println!("all passed");
    Ok(())
}

/// What is missing for one step does not keep the others from running.
fn prepare(steps: &[&Step]) -> Result<()> {
    let has = |part: Part| steps.iter().any(|step| step.part == part);
    match (has(Part::Vm), has(Part::Lint) || has(Part::Unit) || has(Part::Live)) {
        (true, true) => setup::ensure(Scope::All),
        (true, false) => setup::ensure(Scope::Vm),
        (false, _) => setup::ensure(Scope::Test),
    }
}

fn format() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut cargo = process::cargo();
    process::run(cargo.arg("clippy").args(HOST_CRATES).arg("--all-targets").args(DENY_WARNINGS))?;
    // A target with `test = false` is not among all targets, also where it is named with them.
    let mut cargo = process::cargo();
    let live = ["clippy", "--package", "ctrace-tests", "--test", "live"];
    process::run(cargo.args(live).args(DENY_WARNINGS))
}

fn clippy_ebpf() -> Result<()> {
    let Some(toolchain) = setup::ebpf_toolchain() else { bail!("rust-src is missing") };
    // The same target directory would make every build after this one start anew.
    let target_dir = workspace::target_dir().join("ebpf-lints");
    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .current_dir(workspace::root())
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["clippy", "--package", "ctrace-ebpf", "-Z", "build-std=core"])
        .args(["--target", "bpfel-unknown-none", "--target-dir"])
        .arg(target_dir)
        .args(DENY_WARNINGS);
    process::run(&mut cargo)
}

fn documentation() -> Result<()> {
    let mut cargo = process::cargo();
    cargo.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps"]).args(HOST_CRATES);
    process::run(&mut cargo)
}

fn unit() -> Result<()> {
    process::run(process::cargo().args(["test", "--no-fail-fast"]).args(HOST_CRATES))
}

fn live() -> Result<()> {
    let LiveTests { executable, directory, binary_variable } = live::build()?;
    let mut words = vec!["env", &binary_variable, &executable];
    words.extend(live::RUNNER_ARGS);
    process::run(process::as_root(&words)?.current_dir(directory))
}

fn virtual_machine() -> Result<()> {
    vm::test_on(VM_KERNEL)
}
