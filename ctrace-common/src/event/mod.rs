//! One file per event family.

pub mod cgroup;
pub mod oom;
pub mod process;
pub mod seccomp;
pub mod signal;
