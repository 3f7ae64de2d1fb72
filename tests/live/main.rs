//! ctrace on this kernel, with real containers. As root:
//! `cargo test -p ctrace-tests --test live -- --test-threads=1 --nocapture`.
//!
//! Other programs on the host may be killed meanwhile: each test looks at its own victims only.

mod bare;
mod churn;
mod cli;
mod containers;
mod cri;
mod enrich;
mod filters;
mod ground_truth;
mod hostile;
mod inventory;
mod machine;
mod not_oom;
mod output;
mod runtimes;

/// A mebibyte.
const MIB: u64 = 1 << 20;
