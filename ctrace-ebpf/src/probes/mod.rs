//! One file per probe family.

mod block;
mod blocked;
mod lifecycle;
mod oom;
mod process;
mod runq;
mod seccomp;
mod signal;
