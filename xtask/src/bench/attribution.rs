//! What it costs to say whose an event is.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::table::Row;
use crate::process;

const WARM_TARGET_NS: f64 = 100.0;
const RESIDENT_TARGET_MIB: f64 = 40.0;

pub fn measure(runs: u32) -> Result<Vec<Row>> {
    let samples = (0..runs).map(|_| sample()).collect::<Result<Vec<Value>>>()?;
    let column = |name: &str| -> Result<Vec<f64>> {
        let values = samples.iter().map(|sample| sample[name].as_f64());
        values.collect::<Option<_>>().with_context(|| format!("no {name}"))
    };
    Ok(vec![
        Row::new("known event, 1,000 containers", "ns", column("warm_ns")?, Some(WARM_TARGET_NS)),
        Row::new("misses in 1,000,000 events", "", column("misses")?, Some(0.0)),
        Row::new("new container", "us", column("new_us")?, None),
        Row::new(
            "memory of 5,000 containers",
            "MiB",
            column("resident_mib")?,
            Some(RESIDENT_TARGET_MIB),
        ),
    ])
}

/// One process, so that its memory is the engine's alone.
fn sample() -> Result<Value> {
    let mut command = process::cargo();
    command.args(["bench", "--quiet", "--package", "ctrace", "--bench", "attribution"]);
    let figures = process::capture(&mut command)?;
    serde_json::from_str(&figures).context("the benchmark printed no figures")
}
