//! `vm`: the live tests on Debian's kernels in virtual machines.

mod guest;
mod kernels;
mod mirror;
mod packages;
mod store;

use std::{
    io::{self, Write as _},
    process::{Command, exit},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use self::{
    guest::{Ending, Machine, quote},
    kernels::{SERIES, Series},
};
use crate::{
    live::{self, LiveTests},
    process,
    setup::{self, Scope},
};

/// An emulated machine keeps one processor of this one busy, and takes 3 GiB of memory.
const MAX_GUESTS: usize = 2;

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
    #[arg(long, conflicts_with_all = ["filter", "guests"])]
    command: Option<String>,
    /// Share the tests out to so many guests at a time; if absent, one for each processor, 2 at
    /// most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    guests: Option<u16>,
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
    let commands = match args.command {
        Some(command) => vec![command],
        None => live_tests(&args.filter, args.guests.map_or_else(guests, usize::from))?,
    };
    let mut exit_code = 0;
    for series in series {
        for ending in run_in(series, args.update, &args.machine, &commands)? {
            if exit_code == 0 {
                exit_code = ending.exit_code();
            }
        }
    }
    exit(exit_code);
}

/// Runs the live tests on one kernel; failing is an error.
pub fn test_on(name: &str) -> Result<()> {
    let commands = live_tests(&[], guests())?;
    for series in select(&[name.to_owned()])? {
        for ending in run_in(series, false, &Machine::default(), &commands)? {
            ensure!(ending.exit_code() == 0, "kernel {name}: {ending}");
        }
    }
    Ok(())
}

fn guests() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(MAX_GUESTS)
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

/// Boots a guest for each command, all at the same time. What the first one prints is shown as it
/// comes, what the others print when they have ended.
fn run_in(
    series: &Series,
    update: bool,
    machine: &Machine,
    commands: &[String],
) -> Result<Vec<Ending>> {
    let kernel = store::fetch(series, update)?;
    println!("== kernel {} ({}), guests: {}", series.name, kernel.release, commands.len());
    let started = Instant::now();
    let endings = thread::scope(|scope| {
        let (first, others) = commands.split_first().context("no command")?;
        let others = others.iter().map(|command| {
            scope.spawn(|| {
                let mut printed = Vec::new();
                guest::boot(&kernel, machine, command, &mut printed).map(|ending| (ending, printed))
            })
        });
        let others: Vec<_> = others.collect();
        let mut endings = vec![guest::boot(&kernel, machine, first, &mut io::stdout())?];
        for other in others {
            let (ending, printed) =
                other.join().map_err(|_| anyhow::anyhow!("a guest's thread panicked"))??;
            println!("== kernel {}, the next guest", series.name);
            io::stdout().write_all(&printed)?;
            endings.push(ending);
        }
        Ok::<_, anyhow::Error>(endings)
    })?;
    for ending in &endings {
        println!("== kernel {}: {ending}, {} s", series.name, started.elapsed().as_secs());
    }
    Ok(endings)
}

/// The commands that run the live tests in guests, which see this host's files. Without a filter
/// the BTF reader is held against that kernel first; either may fail without keeping the other from
/// running.
fn live_tests(filter: &[String], guests: usize) -> Result<Vec<String>> {
    let LiveTests { executable, directory, binary_variable } = live::build()?;
    let list = ["--list", "--format", "terse"];
    let list = process::capture(Command::new(&executable).args(list).args(filter))?;
    let shares = share_out(&list, guests);
    ensure!(!shares.is_empty(), "no test fits {}", filter.join(" "));
    let directory = directory.to_string_lossy();
    let mut commands = Vec::new();
    for (index, names) in shares.into_iter().enumerate() {
        let words = ["env", &binary_variable, &executable].into_iter();
        let words = words.chain(live::RUNNER_ARGS.iter().copied()).chain(["--exact"]);
        let live = words.chain(names).map(quote).collect::<Vec<_>>().join(" ");
        let has_btf = filter.is_empty() && index == 0;
        let btf = if has_btf { quote(&live::build_btf()?) } else { ":".to_owned() };
        commands.push(format!("cd {}; {btf}; btf=$?; {live} && exit $btf", quote(&directory)));
    }
    Ok(commands)
}

/// Shares the tests of a terse list out. One after the other goes to the next guest: neighbours take
/// about as long.
fn share_out(list: &str, guests: usize) -> Vec<Vec<&str>> {
    let names: Vec<&str> =
        list.lines().filter_map(|line| line.trim().strip_suffix(": test")).collect();
    let share = |guest| names.iter().copied().skip(guest).step_by(guests).collect();
    (0..guests.min(names.len())).map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_is_in_one_share() {
        let list = "a::one: test\nb::two: test\nc::three: test\n\n3 tests, 0 benchmarks\n";
        assert_eq!(share_out(list, 2), [vec!["a::one", "c::three"], vec!["b::two"]]);
        assert_eq!(share_out(list, 1), [["a::one", "b::two", "c::three"]]);
        assert_eq!(share_out(list, 5).len(), 3);
        assert_eq!(share_out("0 tests, 0 benchmarks\n", 2), Vec::<Vec<&str>>::new());
    }

    #[test]
    fn kernels_by_name() {
        assert_eq!(select(&[]).unwrap().len(), SERIES.len());
        assert_eq!(select(&["6.12".to_owned()]).unwrap()[0].suite, "trixie");
        let error = select(&["2.6".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("5.10-security"), "{error}");
    }
}
