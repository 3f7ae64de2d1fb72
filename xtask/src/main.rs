//! ctrace's set-up, build, tests and benchmarks. `cargo xtask help` lists the commands.

mod bench;
mod build;
mod live;
mod process;
mod setup;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "ctrace's set-up, build, tests and benchmarks")]
enum Command {
    /// Find or install what build and tests need.
    Setup(setup::Args),
    /// Build the release binary.
    Build,
    /// Build the release binary and run it with the arguments after `--`.
    Run(build::RunArgs),
    /// Format, lints, documentation, unit tests, live tests, one kernel in a virtual machine.
    Test(test::Args),
    /// Run the live tests on other kernels in virtual machines.
    Vm(vm::Args),
    /// Measure the release binary and hold it against the targets.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::Build => build::release().map(drop),
        Command::Run(args) => build::run(args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::run(args),
        Command::Bench(args) => bench::run(&args),
    }
}
