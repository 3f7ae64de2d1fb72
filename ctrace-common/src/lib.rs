//! The records that cross the ring buffers between the eBPF programs and the collector.
//!
//! Every record starts with a [`Header`]. All records are `#[repr(C)]` without padding; numbers are
//! in the host's byte order. No Rust enum crosses the boundary: kinds are `u16` and turned into
//! [`Kind`] by `TryFrom`.
#![no_std]

pub mod event;
pub mod offsets;
mod settings;
pub mod totals;
mod types;

pub use settings::*;
pub use types::*;
