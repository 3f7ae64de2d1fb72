//! One file per probe family.

mod oom;
