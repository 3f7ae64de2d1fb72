//! What happened to each container and outside of them, at the end of `ctrace watch -o json`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::block::Counted;
use crate::event::fits_schema;

/// The summary.
#[derive(Debug)]
pub struct Report(Value);

/// How many, and how long in all, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub count: u64,
    pub sum_ns: u64,
}

impl Report {
    /// The last one of the lines.
    pub fn of(lines: &[String]) -> Result<Self> {
        let line = lines.iter().rfind(|line| line.starts_with('{')).context("no summary")?;
        let value: Value = serde_json::from_str(line)?;
        ensure!(value["type"] == "summary", "no summary: {value}");
        fits_schema(&value)?;
        Ok(Report(value))
    }

    /// What is told of a container by its name.
    pub fn container(&self, name: &str) -> Result<&Value> {
        let mut containers = self.containers()?.iter();
        let found = containers.find(|container| container["name"] == name);
        found.with_context(|| format!("no {name} in {}", self.0))
    }

    fn containers(&self) -> Result<&Vec<Value>> {
        self.0["containers"].as_array().context("no containers")
    }

    /// Of each container, of the host, and of what is not known.
    fn parts(&self) -> Result<impl Iterator<Item = &Value>> {
        let outside = ["host", "unknown"].map(|name| &self.0[name]);
        Ok(self.containers()?.iter().chain(outside).filter(|part| !part.is_null()))
    }

    /// The waits for a CPU of all.
    pub fn run_queue(&self) -> Result<Latency> {
        let mut all = Latency::default();
        for part in self.parts()? {
            all.count += number(&part["run_queue"], "count")?;
            all.sum_ns += number(&part["run_queue"], "sum_ns")?;
        }
        Ok(all)
    }

    /// The I/O of all on a disk.
    pub fn block(&self, disk: &str) -> Result<Counted> {
        let parts: Vec<&Value> = self.parts()?.collect();
        counted(&parts, |name| name == disk)
    }

    /// The I/O of all on all disks.
    pub fn all_blocks(&self) -> Result<Counted> {
        let parts: Vec<&Value> = self.parts()?.collect();
        counted(&parts, |_| true)
    }
}

/// The I/O of a container on a disk.
pub fn block_of(container: &Value, disk: &str) -> Result<Counted> {
    counted(&[container], |name| name == disk)
}

fn counted(parts: &[&Value], wanted: impl Fn(&Value) -> bool) -> Result<Counted> {
    let mut all = Counted::default();
    for part in parts {
        let lines = part["block"].as_array().context("no block")?;
        for line in lines.iter().filter(|line| wanted(&line["disk"])) {
            let (count, bytes) = (number(line, "count")?, number(line, "bytes")?);
            let times = ["p50_ns", "p99_ns", "sum_ns"].map(|field| number(line, field));
            let [p50, p99, sum] = times;
            let (p50, p99, sum) = (p50?, p99?, sum?);
            ensure!(0 < p50 && p50 <= p99 && sum > 0, "times: {line}");
            match line["op"].as_str() {
                Some("read") => {
                    all.reads += count;
                    all.read_bytes += bytes;
                }
                Some("write") => {
                    all.writes += count;
                    all.written_bytes += bytes;
                }
                _ => all.flushes += count,
            }
        }
    }
    Ok(all)
}

fn number(of: &Value, field: &str) -> Result<u64> {
    of[field].as_u64().with_context(|| format!("no {field} in {of}"))
}
