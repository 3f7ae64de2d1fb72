//! A signal that was sent.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    signal_code, signal_name,
    subject::subject_value,
};

/// By what a signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalVia {
    /// A process sent it: kill(2) and its like.
    Process,
    /// A process wrote to `cgroup.kill`.
    CgroupKill,
    /// Its parent ended, as the process had wished: `PR_SET_PDEATHSIG`.
    ParentDeath,
    /// The first process of its pid namespace, or of one around it, ended.
    PidNamespaceEnd,
    /// The kernel's OOM killer.
    Oom,
    /// A write to a pipe or socket that nobody reads.
    BrokenPipe,
    /// An instruction of its own that cannot be executed.
    Fault,
    /// A seccomp filter.
    Seccomp,
    /// A timer.
    Timer,
    /// The kernel, for a reason that is not known.
    Kernel,
}

impl SignalVia {
    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            SignalVia::Process => "process",
            SignalVia::CgroupKill => "cgroup_kill",
            SignalVia::ParentDeath => "parent_death",
            SignalVia::PidNamespaceEnd => "pid_namespace_end",
            SignalVia::Oom => "oom",
            SignalVia::BrokenPipe => "broken_pipe",
            SignalVia::Fault => "fault",
            SignalVia::Seccomp => "seccomp",
            SignalVia::Timer => "timer",
            SignalVia::Kernel => "kernel",
        }
    }
}

/// What a signal does to its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadliness {
    /// The process handles it, or nothing comes of it.
    #[default]
    None,
    /// It ends the process if a thread other than the first takes it.
    Perhaps,
    /// It ends the process.
    Fatal,
}

/// A signal was sent. The subject is whom it was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    pub number: u32,
    /// `siginfo.si_code`
    pub code: i32,
    pub via: SignalVia,
    /// The process that sent it, or on whose doing the kernel did; absent: the kernel by itself.
    pub sender: Option<Subject>,
    /// To the process, and not to one thread.
    pub is_group: bool,
    /// `TRACE_SIGNAL_*` of `include/trace/events/signal.h`.
    pub result: u32,
    /// Where the fault was, for a signal of one.
    pub address: Option<u64>,
    /// The system call that was refused, for one of seccomp.
    pub syscall: Option<i32>,
    pub deadliness: Deadliness,
    /// The first process of the pid namespace that ended, with [`SignalVia::PidNamespaceEnd`].
    pub init: Option<Subject>,
}

/// In the order of `TRACE_SIGNAL_*`: `include/trace/events/signal.h`.
const RESULTS: [&str; 5] = ["delivered", "ignored", "already_pending", "overflow", "info_lost"];

impl Signal {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "signal",
            ty: Type::Text,
            doc: "Its name",
            get: |signal| signal_name(signal.number).into(),
        },
        Field {
            name: "number",
            ty: Type::Number,
            doc: "Its number",
            get: |signal| signal.number.into(),
        },
        Field {
            name: "sender",
            ty: Type::Object,
            doc: "The process that sent it, with its own container; null: the kernel did",
            get: |signal| signal.sender.as_ref().map_or(Value::Null, subject_value),
        },
        Field {
            name: "via",
            ty: Type::Text,
            doc: "By what it came: process (kill(2) and its like), cgroup_kill, parent_death \
                  (PR_SET_PDEATHSIG), pid_namespace_end (the first process of its pid namespace \
                  ended), oom, broken_pipe, fault, seccomp, timer, or kernel (for another reason)",
            get: |signal| signal.via.name().into(),
        },
        Field {
            name: "code",
            ty: Type::Text,
            doc: "si_code of sigaction(2) by name: SI_USER, SI_TKILL, SI_KERNEL, SEGV_MAPERR",
            get: |signal| signal_code(signal.number, signal.code).into(),
        },
        Field {
            name: "group",
            ty: Type::Flag,
            doc: "Whether it was sent to the process, and not to one thread",
            get: |signal| signal.is_group.into(),
        },
        Field {
            name: "result",
            ty: Type::Text,
            doc: "delivered, ignored, already_pending, overflow (the queue is full) or info_lost \
                  (delivered without saying who sent it)",
            get: |signal| RESULTS.get(signal.result as usize).copied().into(),
        },
        Field {
            name: "fatal",
            ty: Type::Flag,
            doc: "Whether it ends the process; null: if a thread other than the first takes it",
            get: |signal| match signal.deadliness {
                Deadliness::None => false.into(),
                Deadliness::Perhaps => Value::Null,
                Deadliness::Fatal => true.into(),
            },
        },
        Field {
            name: "address",
            ty: Type::Text,
            doc: "Where the fault was, hexadecimal; null: it is no fault, or at no address",
            get: |signal| signal.address.map(hexadecimal).into(),
        },
    ];

    /// Who is behind it, or what.
    pub fn origin(&self, victim: Option<&Subject>) -> String {
        let (sender, init) = (self.sender.as_ref(), self.init.as_ref());
        origin(self.via, sender, self.is_own(victim), init)
    }

    /// Whether the victim sent it to itself.
    pub fn is_own(&self, victim: Option<&Subject>) -> bool {
        let key = |subject: &Subject| (subject.process.pid, subject.process.start_boottime_ns);
        let sender = self.sender.as_ref().filter(|sender| sender.process.pid.is_some());
        sender.zip(victim).is_some_and(|(sender, victim)| key(sender) == key(victim))
    }
}

/// Who or what is behind a signal, for people. `is_own`: its victim sent it.
pub fn origin(
    via: SignalVia,
    sender: Option<&Subject>,
    is_own: bool,
    init: Option<&Subject>,
) -> String {
    let sender = match sender {
        Some(_) if is_own => "the process itself".to_owned(),
        Some(sender) => named(sender),
        None => "an unknown process".to_owned(),
    };
    match via {
        SignalVia::Process => sender,
        SignalVia::CgroupKill => format!("cgroup.kill, written by {sender}"),
        SignalVia::ParentDeath => format!("the end of its parent, {sender}"),
        SignalVia::PidNamespaceEnd => {
            let init = init.map(|init| format!(", {}", init.process.label()));
            format!("the end of its pid namespace's first process{}", init.unwrap_or_default())
        }
        SignalVia::Oom => "the OOM killer".to_owned(),
        SignalVia::BrokenPipe => "the kernel: nobody reads what it writes".to_owned(),
        SignalVia::Fault => "a fault of its own".to_owned(),
        SignalVia::Seccomp => "a seccomp filter".to_owned(),
        SignalVia::Timer => "a timer".to_owned(),
        SignalVia::Kernel => "the kernel".to_owned(),
    }
}

/// `bash[12] (host)`: the process and where it is.
pub fn named(subject: &Subject) -> String {
    format!("{} ({})", subject.process.label(), subject.label())
}

pub fn hexadecimal(address: u64) -> String {
    format!("{address:#x}")
}

impl Detail for Signal {
    fn type_name(&self) -> &'static str {
        "signal"
    }

    fn key(&self) -> &'static str {
        "signal"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let at = self.address.map(|address| format!(" at {address:#x}")).unwrap_or_default();
        let code = match self.via {
            SignalVia::Fault => format!(" ({})", signal_code(self.number, self.code)),
            _ => String::new(),
        };
        let result = match RESULTS.get(self.result as usize) {
            Some(&"delivered") => String::new(),
            Some(result) => format!(", {}", result.replace('_', " ")),
            None => format!(", result {}", self.result),
        };
        let name = signal_name(self.number);
        format!("{process} {name} from {}{at}{code}{result}", self.origin(subject))
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }

    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        self.sender.iter_mut().chain(&mut self.init).collect()
    }

    fn also_about(&self) -> Vec<&Subject> {
        self.sender.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Process;

    fn process(pid: u32, comm: &str) -> Subject {
        let comm = Some(comm.to_owned());
        let process =
            Process { pid: Some(pid), comm, start_boottime_ns: Some(1), ..Process::default() };
        Subject { process, ..Subject::default() }
    }

    fn signal(number: u32, via: SignalVia) -> Signal {
        Signal {
            number,
            code: 0,
            via,
            sender: None,
            is_group: true,
            result: 0,
            address: None,
            syscall: None,
            deadliness: Deadliness::Fatal,
            init: None,
        }
    }

    #[test]
    fn headlines() {
        let victim = process(7, "java");
        let text = |signal: &Signal| signal.headline(Some(&victim));
        let kill = Signal { sender: Some(process(9, "bash")), ..signal(9, SignalVia::Process) };
        assert_eq!(text(&kill), "java[7] SIGKILL from bash[9] (unknown cgroup)");
        let own = Signal { sender: Some(victim.clone()), ..signal(6, SignalVia::Process) };
        assert_eq!(text(&own), "java[7] SIGABRT from the process itself");
        let fault = Signal { address: Some(0x10), code: 1, ..signal(11, SignalVia::Fault) };
        assert_eq!(text(&fault), "java[7] SIGSEGV from a fault of its own at 0x10 (SEGV_MAPERR)");
        let init = Some(process(5, "sh"));
        let namespace = Signal { init, ..signal(9, SignalVia::PidNamespaceEnd) };
        assert_eq!(
            text(&namespace),
            "java[7] SIGKILL from the end of its pid namespace's first process, sh[5]"
        );
        let ignored = Signal { result: 1, ..signal(15, SignalVia::Kernel) };
        assert_eq!(text(&ignored), "java[7] SIGTERM from the kernel, ignored");
    }
}
