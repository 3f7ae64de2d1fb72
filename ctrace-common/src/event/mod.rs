//! One file per event family.

pub mod block;
pub mod cgroup;
pub mod oom;
pub mod process;
pub mod seccomp;
pub mod signal;
