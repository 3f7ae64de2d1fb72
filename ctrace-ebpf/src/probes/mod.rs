//! One file per probe family.

mod lifecycle;
mod oom;
mod process;
mod seccomp;
mod signal;
