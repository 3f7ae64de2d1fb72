//! The probes: what each needs of the kernel, what it attaches, how its records become events.
//!
//! A new probe is a file here, a record in `ctrace-common`, a program in `ctrace-ebpf`, an event in
//! [`crate::event`], and a line in [`PROBES`].

pub mod block;
pub mod blocked;
pub mod lifecycle;
pub mod memory;
pub mod offsets;
pub mod oom;
pub mod pids;
pub mod process;
pub mod runq;
mod sampled;
pub mod seccomp;
pub mod signal;
pub mod throttle;

use std::sync::Arc;

use std::time::Duration;

use aya::Ebpf;
use ctrace_common::Kind;

use crate::{
    event::{CgroupKey, Payload, Subject},
    kernel::Facts,
};

/// Every probe there is. `watch --events`, `check` and the documentation go by this table.
pub const PROBES: &[&dyn Probe] = &[
    &oom::Oom,
    &seccomp::SeccompProbe,
    &signal::SignalProbe,
    &process::ExitProbe,
    &process::ExecProbe,
    &block::BlockProbe,
    &runq::Runq,
    &blocked::Blocked,
    &throttle::Throttle,
    &pids::Pids,
    &memory::Memory,
];

/// A family of events with the hooks that see them.
pub trait Probe: Sync {
    /// The name in `--events`.
    fn name(&self) -> &'static str;
    /// One line of help.
    fn doc(&self) -> &'static str;
    /// Whether it runs where nobody names events: what it gives is rare.
    fn by_default(&self) -> bool {
        true
    }
    /// Probes whose records its own events are judged by: they run as well, and are not shown
    /// unless asked for.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }
    /// The types of the events it gives.
    fn events(&self) -> &'static [&'static str];
    /// Chooses hooks by what this kernel has and allows; pure.
    ///
    /// # Errors
    /// [`Unsupported`] where this kernel cannot run the probe at all.
    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported>;
    /// What turns its records into events. `object` has the programs and maps, loaded.
    ///
    /// # Errors
    /// Where a map of the object cannot be used.
    fn decoder(
        &self,
        facts: &Facts,
        asked: &Asked,
        object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>>;
}

/// What the user asks of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Everything, and not only what is rare or slow: `family:all`.
    pub all: bool,
    /// How the denials by seccomp are seen that return an error.
    pub seccomp_pairing: seccomp::Pairing,
    /// Each denial by seccomp and each wait for a CPU is an event of its own.
    pub no_fold: bool,
    /// Events are filtered by their fields (`--where`).
    pub has_conditions: bool,
    /// Block I/O that takes so long or longer.
    pub block_slower: Duration,
    /// Waits for a CPU of at least so long.
    pub runq_slower: Duration,
    /// Uninterruptible sleep of at least so long.
    pub blocked_slower: Duration,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            all: false,
            seccomp_pairing: seccomp::Pairing::default(),
            no_fold: false,
            has_conditions: false,
            block_slower: Duration::from_millis(50),
            runq_slower: Duration::from_millis(20),
            blocked_slower: Duration::from_secs(1),
        }
    }
}

/// Turns one probe's records into events.
pub trait Decoder {
    /// The kinds that it takes.
    fn kinds(&self) -> &'static [Kind];
    /// Decodes a whole record, header included.
    ///
    /// # Errors
    /// [`DecodeError`] where the bytes are no such record.
    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError>;
    /// Completes an event once its cgroups have their paths. Called once for each event, in their
    /// order.
    fn complete(&mut self, _subject: &Subject, _payload: &mut Payload) {}
    /// Whether the event is asked for. One that is not is still of use to others.
    fn shows(&mut self, _subject: &Subject, _payload: &Payload) -> bool {
        true
    }
    /// Events that no record tells of, once a second and at the end. `now_ns`: since boot.
    fn tick(&mut self, _now_ns: u64) -> Vec<(Subject, Payload)> {
        Vec::new()
    }
    /// As [`Decoder::tick`], events that the files of the cgroups tell. `is_end`: it is the last time.
    fn look(
        &mut self,
        _living: &mut dyn Living,
        _now_ns: u64,
        _is_end: bool,
    ) -> Vec<(Subject, Payload)> {
        Vec::new()
    }
}

/// The cgroups that live, as far as is known.
pub trait Living {
    /// Another number when one came or went.
    fn generation(&self) -> u64;
    /// Those of a hierarchy.
    fn of(&self, hierarchy: u32) -> Vec<CgroupKey>;
    /// The path of one from the root of its hierarchy, where all of it is known.
    fn path(&mut self, key: CgroupKey) -> Option<Arc<str>>;
}

/// A decoder whose events are of use to others only.
pub struct Hidden(pub Box<dyn Decoder>);

impl Decoder for Hidden {
    fn kinds(&self) -> &'static [Kind] {
        self.0.kinds()
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        self.0.decode(record)
    }

    fn complete(&mut self, subject: &Subject, payload: &mut Payload) {
        self.0.complete(subject, payload);
    }

    fn shows(&mut self, _subject: &Subject, _payload: &Payload) -> bool {
        false
    }

    fn tick(&mut self, now_ns: u64) -> Vec<(Subject, Payload)> {
        // It keeps its books, and nobody asks.
        self.0.tick(now_ns);
        Vec::new()
    }
}

/// Bytes that are no record of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of {got} bytes where at least {want} belong")]
    Short { got: usize, want: usize },
    #[error("a record of kind {0}, which this build does not know")]
    Kind(u16),
}

/// Why a probe cannot run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{feature} is missing{}", .min_kernel.map(|v| format!(" (Linux {v} or newer has it)")).unwrap_or_default())]
pub struct Unsupported {
    pub feature: String,
    pub min_kernel: Option<&'static str>,
}

/// What a probe wants loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbePlan {
    /// Read-only globals by name: the bytes of an offsets struct.
    pub globals: Vec<(&'static str, Vec<u8>)>,
    pub hooks: Vec<Hook>,
}

/// A place in the kernel and how it is hooked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's name of the place.
    pub name: &'static str,
    /// The chosen strategy; absent: none is possible.
    pub strategy: Option<Strategy>,
    /// Without it the probe cannot run.
    pub required: bool,
    /// What is tried where the kernel refuses the strategy after all.
    pub fallback: Option<Box<Hook>>,
    /// What it is for.
    pub gives: &'static str,
    /// What is lost by the choice, and what stands in for it; absent: nothing.
    pub lost: Option<&'static str>,
    /// Why nothing better was chosen.
    pub why: Option<String>,
}

/// A way to hook a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// The name that people know: `raw_tp`, `tp_btf`, `fentry`, `kprobe`.
    pub name: &'static str,
    pub programs: Vec<Program>,
}

/// A program of the eBPF object and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    pub attach: Attach,
}

/// How a program is attached. The name is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    RawTracepoint(&'static str),
    BtfTracepoint(&'static str),
    /// Only loaded: it runs when it is read.
    TaskIterator,
    Fentry(&'static str),
    Fexit(&'static str),
    Kprobe(&'static str),
}

/// The probe of this name.
pub fn by_name(name: &str) -> Option<&'static dyn Probe> {
    PROBES.iter().copied().find(|probe| probe.name() == name)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_schema_has_every_type_that_a_probe_gives() {
        let schema = crate::event::schema();
        let types = schema["properties"]["type"]["enum"].as_array().expect("a list");
        for probe in PROBES {
            for kind in probe.events() {
                assert!(types.contains(&(*kind).into()), "{kind} of {}", probe.name());
            }
        }
    }

    #[test]
    fn families_have_names_of_their_own() {
        for (index, probe) in PROBES.iter().enumerate() {
            let first = PROBES.iter().position(|other| other.name() == probe.name());
            assert_eq!(first, Some(index), "{}", probe.name());
        }
    }

    /// README's table of families is this one; `CTRACE_UPDATE=1 cargo test` writes it anew.
    #[test]
    fn the_readme_lists_the_probes() {
        let mut table = String::from("| `--events` | event | what it says |\n|---|---|---|\n");
        for probe in PROBES {
            let only = if probe.by_default() { "" } else { "; only if named" };
            let (name, events, doc) = (probe.name(), probe.events().join("`, `"), probe.doc());
            writeln!(table, "| `{name}` | `{events}` | {doc}{only} |").expect("a String takes all");
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).expect("there is a README");
        let (begin, end) = ("<!-- families: generated -->\n", "<!-- families end -->");
        let (before, rest) = readme.split_once(begin).expect("the table's begin");
        let (listed, after) = rest.split_once(end).expect("the table's end");
        if std::env::var_os("CTRACE_UPDATE").is_some() {
            let made = format!("{before}{begin}{table}{end}{after}");
            std::fs::write(path, made).expect("README can be written");
            return;
        }
        assert!(listed == table, "README's families are stale: CTRACE_UPDATE=1 cargo test");
    }
}
