//! `setup`: finds or installs what build and tests need.

mod apt;
mod items;
mod linker;
pub mod python;
mod rust;

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use self::items::{Detect, ITEMS, Install, Item};
pub use self::{apt::update as update_package_lists, rust::ebpf_toolchain};
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Prepare for this only.
    #[arg(long = "for", value_enum, default_value_t = Scope::All)]
    scope: Scope,
}

/// What a machine is prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    Build,
    Test,
    Vm,
    All,
}

/// How an item was found or got.
enum Outcome {
    Found,
    Installed,
    Missing(String),
}

pub fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let missing = prepare(args.scope, |item, outcome| match outcome {
        Outcome::Found => println!("ok         {:<18} {}", item.name, item.purpose),
        outcome => report(item, outcome),
    });
    println!("{} s", started.elapsed().as_secs());
    if missing.is_empty() { Ok(()) } else { bail!("missing: {}", missing.join(", ")) }
}

/// Prepares without a word about what is there already.
pub fn ensure(scope: Scope) -> Result<()> {
    let missing = prepare(scope, report);
    if missing.is_empty() { Ok(()) } else { bail!("missing: {}", missing.join(", ")) }
}

fn report(item: &Item, outcome: &Outcome) {
    match outcome {
        Outcome::Found => {}
        Outcome::Installed => println!("installed  {:<18} {}", item.name, item.purpose),
        Outcome::Missing(why) => println!("cannot get {:<18} {}: {why}", item.name, item.purpose),
    }
}

fn prepare(scope: Scope, report: impl Fn(&Item, &Outcome)) -> Vec<&'static str> {
    let items: Vec<&Item> = ITEMS.iter().filter(|item| item.serves(scope)).collect();
    let absent: Vec<&Item> = items.iter().copied().filter(|item| !is_there(item)).collect();
    install_packages_at_once(&absent);
    let mut missing = Vec::new();
    for item in items {
        let was_absent = absent.iter().any(|absent| absent.name == item.name);
        let outcome = if was_absent { get(item) } else { Outcome::Found };
        report(item, &outcome);
        if matches!(outcome, Outcome::Missing(_)) {
            missing.push(item.name);
        }
    }
    missing
}

/// One call of apt is much quicker than one for each item. Where it fails, each item is tried by
/// itself afterwards, so its error is of no interest here.
fn install_packages_at_once(absent: &[&Item]) {
    let packages: BTreeSet<&str> = absent
        .iter()
        .filter_map(|item| match item.install {
            Install::Packages(packages) => Some(packages),
            Install::Steps(_) => None,
        })
        .flatten()
        .copied()
        .collect();
    if packages.len() > 1 {
        println!("installing {}", packages.iter().copied().collect::<Vec<_>>().join(" "));
        drop(apt::install(packages));
    }
}

fn get(item: &Item) -> Outcome {
    // The call for all packages may have brought it.
    if matches!(item.install, Install::Packages(_)) && is_there(item) {
        return Outcome::Installed;
    }
    let result = match item.install {
        Install::Packages(packages) => apt::install(packages.iter().copied()),
        Install::Steps(steps) => steps(),
    };
    match result {
        Err(error) => Outcome::Missing(format!("{error:#}")),
        Ok(()) if is_there(item) => Outcome::Installed,
        Ok(()) => Outcome::Missing("installed, but still not found".to_owned()),
    }
}

fn is_there(item: &Item) -> bool {
    match item.detect {
        Detect::Program(name) => process::find_program(name).is_some(),
        Detect::Check(check) => check(),
    }
}
