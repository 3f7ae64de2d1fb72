//! Helpers of the end-to-end tests: they make cgroups, containers and victims, start ctrace, and
//! read what the kernel itself says about the same kill.
//!
//! Nothing here uses ctrace's own code: the kernel log, the cgroup's files and the runtimes'
//! commands are the ground truth that ctrace's output is held against.
//!
//! Everything that is made is named `ctrace-test-<pid>-<n>-…` ([`names`]) and removed on drop;
//! what a killed run left behind is swept by the next.

pub mod block;
pub mod case;
pub mod cgroup;
pub mod cleanup;
pub mod command;
pub mod daemon;
pub mod denials;
pub mod docker;
pub mod engine;
pub mod event;
pub mod facts;
pub mod frozen;
pub mod gate;
pub mod image;
pub mod kernel_log;
pub mod marked;
pub mod names;
pub mod oci;
pub mod oom_check;
pub mod parallel;
pub mod podman;
pub mod process;
pub mod report;
pub mod seccomp;
pub mod victim;
pub mod watch;
