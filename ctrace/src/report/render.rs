//! The report as a table for people, and as a line for programs.

use serde_json::{Value, json};

use super::{Op, Owner, Part, Report};
use crate::event::{
    VERSION,
    text::{bytes, duration, escape},
};

const HEADER: [&str; 6] =
    ["CONTAINER", "OOM KILLS", "DENIALS", "THROTTLED", "RUN QUEUE P99", "EVENTS"];
/// What stands for nothing.
const NONE: &str = "-";

impl Report {
    /// A table, a line for each container, the host and what is not known whose, with one below for each device and operation. `disk`: a
    /// device's name by its number. Empty where nothing happened.
    pub fn table(&self, disk: impl Fn(&str) -> Option<String>) -> String {
        if self.is_empty() {
            return String::new();
        }
        let sorted = self.sorted();
        let rows: Vec<[String; 6]> = sorted.iter().map(|(_, part)| part.cells()).collect();
        let widths: [usize; 6] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(HEADER[column].len())
        });
        let line = |cells: &[String; 6]| {
            let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let mut table = line(&HEADER.map(str::to_owned));
        for ((_, part), row) in sorted.iter().zip(&rows) {
            table += &line(row);
            for ((device, op), latency) in &part.block {
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
        let containers = self.sorted().into_iter().filter_map(|(owner, part)| {
            let id = match owner {
                Owner::Container(id) => Some(id),
                Owner::OtherContainers => None,
                Owner::Host | Owner::Unknown => return None,
            };
            let mut value = part.value(&disk);
            value["id"] = id.map_or(Value::Null, |id| id.as_str().into());
            value["name"] = part.label.as_str().into();
            Some(value)
        });
        let containers: Vec<Value> = containers.collect();
        let of = |owner| self.parts.get(&owner).map(|part| part.value(&disk));
        let line = json!({
            "v": VERSION,
            "type": "summary",
            "containers": containers,
            "host": of(Owner::Host),
            "unknown": of(Owner::Unknown),
        });
        Some(line.to_string())
    }

    /// Containers by name, then by id; then what is of none.
    fn sorted(&self) -> Vec<(&Owner, &Part)> {
        let mut sorted: Vec<_> = self.parts.iter().collect();
        sorted.sort_by_key(|(owner, part)| (!matches!(owner, Owner::Container(_)), &part.label));
        sorted
    }
}

impl Part {
    fn oom_kills(&self) -> u64 {
        self.events.get("oom_kill").copied().unwrap_or(0)
    }

    fn value(&self, disk: impl Fn(&str) -> Option<String>) -> Value {
        let block = |(&(device, op), latency): (&(u32, Op), &super::Latency)| {
            let device = number(device);
            json!({
                "disk": disk(&device),
                "device": device,
                "op": op.name(),
                "count": latency.count(),
                "bytes": latency.bytes,
                "sum_ns": latency.sum_ns,
                "p50_ns": latency.percentile(50),
                "p99_ns": latency.percentile(99),
            })
        };
        json!({
            "events": self.events,
            "oom_kills": self.oom_kills(),
            "denials": self.denials,
            "throttled_ns": self.throttled_ns,
            "run_queue": {
                "count": self.run_queue.count(),
                "sum_ns": self.run_queue.sum_ns,
                "p50_ns": self.run_queue.percentile(50),
                "p99_ns": self.run_queue.percentile(99),
            },
            "block": self.block.iter().map(block).collect::<Vec<_>>(),
        })
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
