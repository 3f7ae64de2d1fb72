//! The report as a table for people, and as a line for programs.

use serde_json::{Value, json};

use super::{OfContainer, Op, Report};
use crate::event::{
    VERSION,
    text::{bytes, duration, escape},
};

const HEADER: [&str; 6] =
    ["CONTAINER", "OOM KILLS", "DENIALS", "THROTTLED", "RUN QUEUE P99", "EVENTS"];
/// What stands for nothing.
const NONE: &str = "-";

impl Report {
    /// A table, a line for each container, with one below for each device and operation. `disk`: a
    /// device's name by its number. Empty where nothing happened.
    pub fn table(&self, disk: impl Fn(&str) -> Option<String>) -> String {
        if self.is_empty() {
            return String::new();
        }
        let sorted = self.sorted();
        let rows: Vec<[String; 6]> = sorted.iter().map(|(_, of)| of.cells()).collect();
        let widths: [usize; 6] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(HEADER[column].len())
        });
        let line = |cells: &[String; 6]| {
            let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let mut table = line(&HEADER.map(str::to_owned));
        for ((_, of), row) in sorted.iter().zip(&rows) {
            table += &line(row);
            for ((device, op), latency) in &of.block {
                let device = number(*device);
                let name = disk(&device).map_or(device, |name| escape(&name));
                let at = |percent| latency.percentile(percent).map_or(NONE.into(), duration);
                table += &format!(
                    "  {name} {}: {}, {}, p50 {}, p99 {}\n",
                    op.name(),
                    latency.count(),
                    bytes(latency.bytes),
                    at(50),
                    at(99),
                );
            }
        }
        table
    }

    /// The same as one line of JSON; absent where nothing happened.
    pub fn line(&self, disk: impl Fn(&str) -> Option<String>) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let block = |of: &OfContainer| -> Vec<Value> {
            let one = |(&(device, op), latency): (&(u32, Op), &super::Latency)| {
                let device = number(device);
                json!({
                    "disk": disk(&device),
                    "device": device,
                    "op": op.name(),
                    "count": latency.count(),
                    "bytes": latency.bytes,
                    "p50_ns": latency.percentile(50),
                    "p99_ns": latency.percentile(99),
                })
            };
            of.block.iter().map(one).collect()
        };
        let containers = self.sorted().into_iter().map(|(id, of)| {
            json!({
                "id": Some(id).filter(|id| *id != super::OTHERS),
                "name": of.label,
                "events": of.events,
                "oom_kills": of.oom_kills(),
                "denials": of.denials,
                "throttled_ns": of.throttled_ns,
                "run_queue": {
                    "count": of.run_queue.count(),
                    "p50_ns": of.run_queue.percentile(50),
                    "p99_ns": of.run_queue.percentile(99),
                },
                "block": block(of),
            })
        });
        let containers: Vec<Value> = containers.collect();
        Some(json!({ "v": VERSION, "type": "summary", "containers": containers }).to_string())
    }

    /// By name, then by id.
    fn sorted(&self) -> Vec<(&str, &OfContainer)> {
        let mut sorted: Vec<_> = self.containers.iter().map(|(id, of)| (id.as_str(), of)).collect();
        sorted.sort_by(|(_, one), (_, other)| one.label.cmp(&other.label));
        sorted
    }
}

impl OfContainer {
    fn oom_kills(&self) -> u64 {
        self.events.get("oom_kill").copied().unwrap_or(0)
    }

    fn cells(&self) -> [String; 6] {
        let count = |count: u64| if count == 0 { NONE.to_owned() } else { count.to_string() };
        let time = |ns: Option<u64>| ns.map_or(NONE.to_owned(), duration);
        let events: Vec<String> =
            self.events.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        [
            escape(&self.label),
            count(self.oom_kills()),
            count(self.denials),
            time(Some(self.throttled_ns).filter(|ns| *ns > 0)),
            time(self.run_queue.percentile(99)),
            if events.is_empty() { NONE.to_owned() } else { events.join(", ") },
        ]
    }
}

/// `major:minor` of a device as the kernel numbers it: `include/linux/kdev_t.h`.
fn number(device: u32) -> String {
    format!("{}:{}", device >> 20, device & 0xf_ffff)
}
