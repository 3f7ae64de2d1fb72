//! How much work the kernel's verifier has with each program.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::finish;
use ctrace_tests::facts::ctrace;
use serde_json::Value;
use std::process::Command;

/// By kernel series, then by program: what `ctrace check --load -o json` says. The figures are of one
/// kernel of each series; they differ little within one.
const TABLE: &str = include_str!("../verified.json");
/// A program may grow by so much, per cent, before somebody has to look.
const MAX_GROWTH: u64 = 20;

type Table = BTreeMap<String, BTreeMap<String, u64>>;

#[test]
fn programs_do_not_grow_unseen() {
    case("no program gives the verifier over 20 % more to do than the table says", || {
        let table: Table = serde_json::from_str(TABLE)?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let series = release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let finished = finish(Command::new(ctrace()?).args(["check", "--load", "-o", "json"]))?;
        let report: Value = serde_json::from_slice(&finished.expect_code(0)?.stdout)?;
        let programs = report["programs"].as_array().context("no programs")?;
        let counts = programs.iter().map(|program| {
            let name = program["name"].as_str().context("no name")?;
            Ok((name.to_owned(), program["verified_instructions"].as_u64()))
        });
        let counts: BTreeMap<_, _> = counts.collect::<anyhow::Result<_>>()?;
        ensure!(!counts.is_empty(), "no program is loaded");
        let told: BTreeMap<_, _> =
            counts.iter().filter_map(|(name, count)| Some((name, (*count)?))).collect();
        println!("  {}", serde_json::to_string(&BTreeMap::from([(&series, &told)]))?);
        if told.is_empty() {
            return Err(cannot(
                "the count of verified instructions is told by Linux 5.16 and newer",
            ));
        }
        let Some(known) = table.get(&series) else {
            return Err(cannot(format!("the table has no figures of Linux {series}")));
        };
        for (name, count) in told {
            let known = known.get(name).with_context(|| format!("{name} is not in the table"))?;
            ensure!(
                count * 100 <= known * (100 + MAX_GROWTH),
                "{name}: {count} instructions, {known} in the table"
            );
        }
        Ok(())
    });
}
