//! ctrace: an eBPF kernel event tracer for hosts that run containers.
//!
//! # The way of the data
//!
//! ```text
//! kernel hook -> eBPF program -> ring buffer -> collect -> decode (probes) -> attribute
//!     -> filter -> sink
//! ```
//!
//! One direction; no module reaches back.
//!
//! # Invariants
//!
//! - `event` imports nothing of ctrace but `ctrace-common`.
//! - `filter`, `report` and `sink` import `event` alone: never aya, probes, kernel or each other.
//! - `attribute` imports `event`; it never fails, it answers "unknown".
//! - `verdict` imports `event` alone.
//! - `enrich` imports `event` alone; it has a thread of its own and no event waits for it.
//! - aya's programs appear in `loader`, and in the probe that reads an iterator; its maps in `loader`,
//!   `collect`, `pipeline`, and in the decoders of `probes` that have one of their own.
//! - Only `pipeline` and `cli` see all stages; nothing imports `cli`.
//! - BTF, decoding, filter, plan and rendering are pure.

pub mod attribute;
mod background;
pub mod cli;
pub mod collect;
pub mod enrich;
pub mod event;
pub mod filter;
pub mod kernel;
pub mod loader;
pub mod output;
pub mod pipeline;
pub mod plan;
pub mod probes;
pub mod report;
pub mod sink;
mod verdict;
