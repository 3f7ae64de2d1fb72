//! One file per event family.

pub mod block;
pub mod blocked;
pub mod cgroup;
pub mod oom;
pub mod process;
pub mod runq;
pub mod seccomp;
pub mod signal;
