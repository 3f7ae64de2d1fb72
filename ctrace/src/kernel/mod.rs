//! Read-only facts about the running kernel.

pub mod audit;
pub mod btf;
pub mod cgroups;
pub mod clock;
mod facts;
pub mod features;
pub mod host;
pub mod iterator;
pub mod kallsyms;
pub mod kmsg;
pub mod limits;
pub mod process;

pub use audit::{AuditLog, AuditRead, AuditSeccomp};
pub use btf::{ArgType, Btf, BtfError, Prototype};
pub use cgroups::{CgroupLayout, Hierarchy, LayoutKind, Version};
pub use facts::{Facts, require_privileges};
pub use features::{Features, Refusal, Trial, idle};
pub use host::{Capabilities, Capability, Lockdown};
pub use iterator::BpfIterator;
pub use kallsyms::{Frames, Symbols, SymbolsError};
pub use kmsg::{Kmsg, KmsgRecord};
