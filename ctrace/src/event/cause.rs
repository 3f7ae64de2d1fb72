//! Why a process ended.

use super::{
    Subject,
    field::{Field, Type, Value},
    signal::{SignalVia, hexadecimal, named, origin},
    signal_code, signal_name,
    subject::subject_value,
    text,
};

/// What kind of end it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CauseKind {
    /// The kernel's OOM killer.
    Oom,
    /// A signal, from whom `sender` and `via` say.
    Signal,
    /// A seccomp filter.
    Seccomp,
    /// A fault of its own: a bad address, a division by zero.
    Fault,
    /// It ended itself, with an exit code.
    Exit,
    /// A signal ended it, and nobody was seen to send it.
    #[default]
    Unknown,
}

impl CauseKind {
    pub const ALL: [CauseKind; 6] = [
        CauseKind::Oom,
        CauseKind::Signal,
        CauseKind::Seccomp,
        CauseKind::Fault,
        CauseKind::Exit,
        CauseKind::Unknown,
    ];

    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            CauseKind::Oom => "oom",
            CauseKind::Signal => "signal",
            CauseKind::Seccomp => "seccomp",
            CauseKind::Fault => "fault",
            CauseKind::Exit => "exit",
            CauseKind::Unknown => "unknown",
        }
    }
}

/// The OOM kill that ended a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomCause {
    /// [`super::Oom::id`]
    pub id: u64,
    /// Whose limit was hit, for people.
    pub why: String,
    /// The path of the memory cgroup whose limit was hit.
    pub cgroup: Option<String>,
}

/// The signal that ended a process, or that it was asked to end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalCause {
    pub number: u32,
    pub code: i32,
    pub via: SignalVia,
    /// Absent: the kernel.
    pub sender: Option<Subject>,
    /// The sender is the victim.
    pub is_own: bool,
    pub init: Option<Subject>,
    pub address: Option<u64>,
    pub syscall: Option<i32>,
    /// From the signal to the end, nanoseconds.
    pub before_ns: u64,
}

/// Why a process ended: the one verdict of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub kind: CauseKind,
    pub oom: Option<OomCause>,
    pub signal: Option<SignalCause>,
    /// The system call that a seccomp filter ended it for.
    pub syscall: Option<&'static str>,
    /// The sender is a container runtime's; absent: its name does not tell.
    pub by_runtime: Option<bool>,
}

impl Cause {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "kind",
            ty: Type::Text,
            doc: "oom, signal (from sender), seccomp, fault (a bad address or instruction of its \
                  own), exit (by itself), or unknown (a signal that nobody was seen to send)",
            get: |cause| cause.kind.name().into(),
        },
        Field {
            name: "oom_id",
            ty: Type::Number,
            doc: "oom.id of the OOM kill",
            get: |cause| cause.oom.as_ref().map(|oom| oom.id).into(),
        },
        Field {
            name: "oom_cgroup",
            ty: Type::Text,
            doc: "oom.oom_cgroup of the OOM kill: whose limit was hit",
            get: |cause| cause.oom.as_ref().and_then(|oom| oom.cgroup.as_ref()).into(),
        },
        Field {
            name: "signal",
            ty: Type::Text,
            doc: "The signal that ended it. With kind exit: the last that asked it to end before it \
                  did, from outside its container",
            get: |cause| cause.signal.as_ref().map(|signal| signal_name(signal.number)).into(),
        },
        Field {
            name: "sender",
            ty: Type::Object,
            doc: "Who sent that signal, with its own container; null: the kernel, or nobody was \
                  seen",
            get: |cause| cause.sender().map_or(Value::Null, subject_value),
        },
        Field {
            name: "by_runtime",
            ty: Type::Flag,
            doc: "Whether the sender is a container runtime's: a stop, and no stranger's kill; null: its \
                  name does not tell, as where it is the number of a file descriptor (a program run \
                  by fexecve(3), before Linux 6.14)",
            get: |cause| cause.by_runtime.into(),
        },
        Field {
            name: "via",
            ty: Type::Text,
            doc: "By what that signal came: signal.via",
            get: |cause| cause.signal.as_ref().map(|signal| signal.via.name()).into(),
        },
        Field {
            name: "code",
            ty: Type::Text,
            doc: "si_code of that signal by name",
            get: |cause| {
                let signal = cause.signal.as_ref();
                signal.map(|signal| signal_code(signal.number, signal.code)).into()
            },
        },
        Field {
            name: "syscall",
            ty: Type::Text,
            doc: "With kind seccomp: the system call; null: not known, as where the family seccomp is \
                  not watched",
            get: |cause| cause.syscall.into(),
        },
        Field {
            name: "address",
            ty: Type::Text,
            doc: "Where the fault was, hexadecimal",
            get: |cause| {
                let address = cause.signal.as_ref().and_then(|signal| signal.address);
                address.map(hexadecimal).into()
            },
        },
        Field {
            name: "before_ns",
            ty: Type::Number,
            doc: "Nanoseconds from that signal to the end",
            get: |cause| cause.signal.as_ref().map(|signal| signal.before_ns).into(),
        },
        Field {
            name: "text",
            ty: Type::Text,
            doc: "The cause in words",
            get: |cause| cause.text().into(),
        },
    ];

    pub fn sender(&self) -> Option<&Subject> {
        self.signal.as_ref()?.sender.as_ref()
    }

    pub fn subjects_mut(&mut self) -> impl Iterator<Item = &mut Subject> {
        let signal = self.signal.iter_mut();
        signal.flat_map(|SignalCause { sender, init, .. }| sender.iter_mut().chain(init.iter_mut()))
    }

    /// The cause in words.
    pub fn text(&self) -> String {
        match (self.kind, &self.signal, &self.oom) {
            (CauseKind::Oom, _, Some(oom)) => format!("the OOM killer ({})", oom.why),
            (CauseKind::Oom, _, None) => "the OOM killer".to_owned(),
            (CauseKind::Signal, Some(signal), _) => self.origin(signal),
            (CauseKind::Seccomp, ..) if let Some(name) = self.syscall => {
                format!("a seccomp filter refused {name}")
            }
            (CauseKind::Seccomp, Some(SignalCause { syscall: Some(number), .. }), _) => {
                format!("a seccomp filter refused system call {number}")
            }
            (CauseKind::Seccomp, ..) => "a seccomp filter".to_owned(),
            (CauseKind::Fault, Some(SignalCause { number, code, address, .. }), _) => {
                let at = address.map(|address| format!(" at {address:#x}")).unwrap_or_default();
                format!("fault{at} ({})", signal_code(*number, *code))
            }
            (CauseKind::Exit, Some(signal), _) => format!(
                "asked to by {} from {} {} before",
                signal_name(signal.number),
                self.origin(signal),
                text::age(signal.before_ns),
            ),
            (CauseKind::Exit, None, _) => "by itself".to_owned(),
            (CauseKind::Signal | CauseKind::Fault | CauseKind::Unknown, ..) => {
                "who sent it was not seen".to_owned()
            }
        }
    }

    fn origin(&self, signal: &SignalCause) -> String {
        let SignalCause { via, sender, init, is_own, .. } = signal;
        match sender {
            Some(sender) if self.by_runtime == Some(true) => {
                let by = if *via == SignalVia::CgroupKill { ", by cgroup.kill" } else { "" };
                format!("the container runtime, {}{by}", named(sender))
            }
            _ => origin(*via, sender.as_ref(), *is_own, init.as_ref()),
        }
    }
}
