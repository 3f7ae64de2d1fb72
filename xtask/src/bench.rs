//! `bench`: measurements of the release binary, each in a file of its own.

mod attribution;
mod startup;
mod table;
mod watch;

use std::path::Path;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use self::table::Row;
use crate::{build, process};

#[derive(clap::Args)]
pub struct Args {
    /// Benchmarks; all of them by default.
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// Measured runs of each.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Time to the `attached:` line and memory after it.
    Startup,
    /// Time and memory of saying whose an event is.
    Attribution,
    /// What watching costs the host, beside other tracers.
    Watch,
}

impl Bench {
    fn measure(self, binary: &Path, runs: u32) -> Result<Vec<Row>> {
        match self {
            Self::Startup => startup::measure(binary, runs),
            Self::Attribution => attribution::measure(runs),
            Self::Watch => watch::measure(binary, runs),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let binary = build::release()?;
    ensure!(
        process::is_root(),
        "ctrace needs root to attach; run: sudo -E env PATH=$PATH cargo xtask bench"
    );
    let benches = if args.benches.is_empty() { Bench::value_variants() } else { &args.benches };
    let mut rows = Vec::new();
    for bench in benches {
        rows.extend(bench.measure(&binary, args.runs)?);
    }
    print!("{}", table::render(&rows));
    let missed: Vec<&str> =
        rows.iter().filter(|row| row.misses()).map(|row| row.name.as_str()).collect();
    ensure!(missed.is_empty(), "targets missed: {}", missed.join(", "));
    Ok(())
}
