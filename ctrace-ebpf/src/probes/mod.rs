//! One file per probe family.

mod block;
mod lifecycle;
mod oom;
mod process;
mod seccomp;
mod signal;
