//! ctrace on this kernel, with real containers. As root:
//! `cargo test -p ctrace-tests --test live -- --test-threads=1 --nocapture`.
//!
//! Other programs on the host may be killed meanwhile: each test looks at its own victims only.

mod bare;
mod block;
mod block_events;
mod block_owner;
mod block_peers;
mod blocked;
mod by_default;
mod churn;
mod cli;
mod containerd;
mod containers;
mod cri;
mod daemons;
mod deaths;
mod deaths_filtered;
mod deaths_of_containers;
mod docker_options;
mod enrich;
mod exec_storm;
mod filters;
mod flood;
mod ground_truth;
mod hierarchies;
mod hostile;
mod inventory;
mod lifecycle_loss;
mod limits;
mod losses;
mod machine;
mod namespaces;
mod not_oom;
mod output;
mod podman_cgroups;
mod process_churn;
mod process_ends;
mod process_filters;
mod runq;
mod runtimes;
mod seccomp;
mod seccomp_containers;
mod seccomp_others;
mod stream;
mod verifier;

/// A mebibyte.
const MIB: u64 = 1 << 20;
