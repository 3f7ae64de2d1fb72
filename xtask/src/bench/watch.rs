//! What watching costs the host: loads on the kernel, bare, under programs that do nothing on the same
//! hooks, under ctrace, and under other tracers that are installed.
//!
//! All variants of a load take turns, so that what else happens on the machine meets all of them.
//! Figures are increments over bare.

mod disk;
mod loads;
mod tracers;

use std::path::Path;

use anyhow::{Context as _, Result};

use self::{
    loads::Load,
    tracers::{CTRACE, EMPTY, Tracer},
};
use super::table::Row;

pub fn measure(binary: &Path, runs: u32) -> Result<Vec<Row>> {
    let program = loads::program()?;
    let mut rows = Vec::new();
    for load in Load::all(&program)? {
        let tracers = tracers::of(load.hooks(), binary, &program);
        let mut bare = Vec::new();
        let mut increments = vec![Vec::new(); tracers.len()];
        for _ in 0..runs {
            let figure = load.run().with_context(|| format!("{} failed", load.name()))?;
            bare.push(figure);
            for (tracer, increments) in tracers.iter().zip(&mut increments) {
                let running = tracer.start()?;
                let traced = load.run();
                running.stop()?;
                let traced = traced.with_context(|| format!("{} failed", load.name()))?;
                increments.push(load.increment(traced, figure));
            }
        }
        if let Some(target) = load.ratio() {
            let of = |name| tracers.iter().position(|tracer| tracer.name == name);
            let (empty, ctrace) = of(EMPTY).zip(of(CTRACE)).context("no tracers to compare")?;
            let pairs = increments[ctrace].iter().zip(&increments[empty]);
            let ratios = pairs.map(|(ctrace, empty)| ctrace / empty).collect();
            let title = format!("{}: ctrace / {EMPTY}", load.name());
            rows.push(Row::new(title, "x", ratios, Some(target)));
        }
        rows.push(Row::new(format!("{}: bare", load.name()), load.unit(), bare, None));
        for (Tracer { name, .. }, increments) in tracers.iter().zip(increments) {
            let title = format!("{}: + {name}", load.name());
            rows.push(Row::new(title, load.increment_unit(), increments, load.target(name)));
        }
    }
    Ok(rows)
}
