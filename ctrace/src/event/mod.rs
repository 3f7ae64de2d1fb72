//! The events as ctrace's users see them: owned, decoded, attributed.
//!
//! A new event is one file here: its struct, its `FIELDS` table and its text.

mod attribution;
mod block;
mod blocked;
mod cause;
mod container;
pub mod field;
mod listed;
mod lost;
mod memory;
mod oom;
mod pids;
mod process;
mod runq;
mod schema;
mod seccomp;
mod selector;
mod signal;
mod signal_names;
mod subject;
pub mod text;
mod throttle;
mod tree;

pub use attribution::*;
pub use block::{Block, OwnerVia, Submitter};
pub use blocked::Blocked;
pub use cause::{Cause, CauseKind, OomCause, SignalCause};
pub use container::*;
use field::Value;
pub use listed::*;
pub use lost::Lost;
pub use memory::MemoryPressure;
pub use oom::{Constraint, Level, Memory, Oom, OomVia};
pub use pids::PidsMax;
pub use process::{Exec, Exit};
pub use runq::RunqDelay;
#[cfg(test)]
pub(crate) use schema::is_published;
pub use schema::schema;
pub use seccomp::{Seccomp, SeccompAction};
pub use selector::{is_hex64, matches};
pub use signal::{Deadliness, Signal, SignalVia};
pub use signal_names::{signal_code, signal_name};
pub use subject::*;
pub use throttle::Throttle;

/// Version of the JSON form: raised when a field changes its meaning or goes.
pub const VERSION: u64 = 1;

/// What happened, to whom and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the epoch, UTC.
    pub time_ns: i128,
    /// Whom it is about; absent for what is about ctrace itself.
    pub subject: Option<Subject>,
    pub payload: Payload,
}

impl Event {
    /// All whom it is about.
    pub fn about(&self) -> impl Iterator<Item = &Subject> {
        self.subject.iter().chain(self.payload.detail().also_about())
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    OomKill(Box<Oom>),
    Exec(Exec),
    Exit(Exit),
    Throttle(Throttle),
    PidsMax(PidsMax),
    MemoryPressure(MemoryPressure),
    Seccomp(Seccomp),
    Signal(Box<Signal>),
    Block(Box<Block>),
    RunqDelay(RunqDelay),
    Blocked(Blocked),
    Lost(Lost),
}

/// A line of evidence below an event's headline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// A word for the left column; empty: it goes on with the line above.
    pub label: &'static str,
    pub text: String,
}

/// How bad an event is: the colour of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something runs no longer that nobody wanted to end.
    Gone,
    /// Something ended or failed.
    Bad,
    /// Slow, denied, or at a limit.
    Notable,
    /// What goes on.
    Normal,
    /// Events are missing.
    Gap,
}

/// What every kind of event can say of itself. Text may hold hostile bytes: a sink escapes it.
pub trait Detail {
    /// The event's type in JSON and in text.
    fn type_name(&self) -> &'static str;
    /// Key of the payload in JSON.
    fn key(&self) -> &'static str;
    /// The payload in JSON.
    fn value(&self) -> Value<'_>;
    /// How bad it is.
    fn severity(&self) -> Severity {
        Severity::Notable
    }
    /// One line for people.
    fn headline(&self, subject: Option<&Subject>) -> String;
    /// The lines below it.
    fn evidence(&self, subject: Option<&Subject>) -> Vec<Evidence>;
    /// Processes that it names besides the event's subject.
    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        Vec::new()
    }
    /// Those of them that it is about as well: a filter that wants one of them wants the event.
    fn also_about(&self) -> Vec<&Subject> {
        Vec::new()
    }
    /// Cgroups that it names besides its subjects'.
    fn cgroups_mut(&mut self) -> Vec<&mut Cgroup> {
        Vec::new()
    }
}

impl Payload {
    pub fn detail(&self) -> &dyn Detail {
        match self {
            Payload::OomKill(oom) => oom.as_ref(),
            Payload::Exec(exec) => exec,
            Payload::Exit(exit) => exit,
            Payload::Throttle(throttle) => throttle,
            Payload::PidsMax(pids) => pids,
            Payload::MemoryPressure(memory) => memory,
            Payload::Seccomp(seccomp) => seccomp,
            Payload::Signal(signal) => signal.as_ref(),
            Payload::Block(block) => block.as_ref(),
            Payload::RunqDelay(delay) => delay,
            Payload::Blocked(blocked) => blocked,
            Payload::Lost(lost) => lost,
        }
    }

    pub fn detail_mut(&mut self) -> &mut dyn Detail {
        match self {
            Payload::OomKill(oom) => oom.as_mut(),
            Payload::Exec(exec) => exec,
            Payload::Exit(exit) => exit,
            Payload::Throttle(throttle) => throttle,
            Payload::PidsMax(pids) => pids,
            Payload::MemoryPressure(memory) => memory,
            Payload::Seccomp(seccomp) => seccomp,
            Payload::Signal(signal) => signal.as_mut(),
            Payload::Block(block) => block.as_mut(),
            Payload::RunqDelay(delay) => delay,
            Payload::Blocked(blocked) => blocked,
            Payload::Lost(lost) => lost,
        }
    }
}
