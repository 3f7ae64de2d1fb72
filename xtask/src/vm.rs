//! `vm`: the live tests on Debian's kernels in virtual machines.

mod guest;
mod kernels;
mod mirror;
mod packages;
mod store;

use std::{process::exit, time::Instant};

use anyhow::{Context as _, Result, ensure};

use self::{
    guest::{Ending, Machine, quote},
    kernels::{SERIES, Series},
};
use crate::{
    live::{self, LiveTests},
    setup::{self, Scope},
};

#[derive(clap::Args)]
pub struct Args {
    /// Kernels (see --list); all of them by default.
    kernels: Vec<String>,
    /// Show the kernels and what is in the cache.
    #[arg(long)]
    list: bool,
    /// Look for newer kernels than those in the cache.
    #[arg(long)]
    update: bool,
    /// Run this shell command in place of the tests.
    #[arg(long, conflicts_with = "filter")]
    command: Option<String>,
    #[command(flatten)]
    machine: Machine,
    /// Arguments for the test runner, such as a part of a test's name.
    #[arg(last = true)]
    filter: Vec<String>,
}

pub fn run(args: Args) -> Result<()> {
    if args.list {
        return list();
    }
    let series = select(&args.kernels)?;
    setup::ensure(Scope::Vm)?;
    let command = match args.command {
        Some(command) => command,
        None => live_tests(&args.filter)?,
    };
    let mut exit_code = 0;
    for series in series {
        let ending = run_in(series, args.update, &args.machine, &command)?;
        if exit_code == 0 {
            exit_code = ending.exit_code();
        }
    }
    exit(exit_code);
}

/// Runs the live tests on one kernel; failing is an error.
pub fn test_on(name: &str) -> Result<()> {
    let command = live_tests(&[])?;
    for series in select(&[name.to_owned()])? {
        let ending = run_in(series, false, &Machine::default(), &command)?;
        ensure!(ending.exit_code() == 0, "kernel {name}: {ending}");
    }
    Ok(())
}

fn list() -> Result<()> {
    for series in SERIES {
        let cached = store::cached(series)?.map_or("-".to_owned(), |kernel| kernel.release);
        println!("{:<14} {:<22} {:<18} {}", series.name, cached, series.suite, series.why);
    }
    Ok(())
}

fn select(names: &[String]) -> Result<Vec<&'static Series>> {
    if names.is_empty() {
        return Ok(SERIES.iter().collect());
    }
    names
        .iter()
        .map(|name| {
            SERIES.iter().find(|series| series.name == name).with_context(|| {
                let known: Vec<&str> = SERIES.iter().map(|series| series.name).collect();
                format!("no kernel {name}; there are {}", known.join(", "))
            })
        })
        .collect()
}

fn run_in(series: &Series, update: bool, machine: &Machine, command: &str) -> Result<Ending> {
    let kernel = store::fetch(series, update)?;
    println!("== kernel {} ({})", series.name, kernel.release);
    let started = Instant::now();
    let ending = guest::boot(&kernel, machine, command)?;
    println!("== kernel {}: {ending}, {} s", series.name, started.elapsed().as_secs());
    Ok(ending)
}

/// The command that runs the live tests in a guest, which sees this host's files. Without a filter
/// the BTF reader is held against that kernel first; either may fail without keeping the other from
/// running.
fn live_tests(filter: &[String]) -> Result<String> {
    let LiveTests { executable, directory, binary_variable } = live::build()?;
    let directory = directory.to_string_lossy();
    let words = ["env", &binary_variable, &executable].into_iter();
    let words = words.chain(live::RUNNER_ARGS.iter().copied());
    let words = words.chain(filter.iter().map(String::as_str)).map(quote);
    let live = words.collect::<Vec<_>>().join(" ");
    let btf = if filter.is_empty() { quote(&live::build_btf()?) } else { ":".to_owned() };
    Ok(format!("cd {}; {btf}; btf=$?; {live} && exit $btf", quote(&directory)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_by_name() {
        assert_eq!(select(&[]).unwrap().len(), SERIES.len());
        assert_eq!(select(&["6.12".to_owned()]).unwrap()[0].suite, "trixie");
        let error = select(&["2.6".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("5.10-security"), "{error}");
    }
}
