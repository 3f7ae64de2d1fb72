//! A process runs another program, and a process ends.

use super::{
    Cause, CauseKind, Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
    signal_name, text,
};

/// A process runs another program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// As it was given to execve; a script's, not its interpreter's. Absent: it could not be read.
    pub filename: Option<String>,
    pub args: Vec<String>,
    /// Bytes of arguments that were cut off.
    pub args_cut_bytes: u64,
}

/// The last thread of a process has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// What it gave to exit(2); absent where a signal ended it.
    pub code: Option<u32>,
    /// The signal that ended it.
    pub signal: Option<u32>,
    pub core_dumped: bool,
    /// From its fork to its end.
    pub runtime_ns: Option<u64>,
    /// It was the first process of its container's pid namespace, and not of one that the container
    /// made: the container ends with it.
    pub container_end: bool,
    /// Why it ended.
    pub cause: Option<Box<Cause>>,
    /// OOM kills of other processes of the container while it ran; absent where none ends.
    pub oom_kills_inside: Option<u64>,
}

impl Exec {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "filename",
            ty: Type::Text,
            doc: "The file, as it was given to execve; null: it could not be read",
            get: |exec| exec.filename.as_ref().into(),
        },
        Field {
            name: "args",
            ty: Type::Texts,
            doc: "The arguments, the program's own name first",
            get: |exec| Value::List(exec.args.iter().map(Into::into).collect()),
        },
        Field {
            name: "args_cut_bytes",
            ty: Type::Bytes,
            doc: "Bytes of arguments that were too many to be read",
            get: |exec| exec.args_cut_bytes.into(),
        },
    ];
}

impl Exit {
    /// From the status of wait(2).
    pub fn of_status(status: u32) -> Self {
        let signal = status & 0x7f;
        Self {
            code: (signal == 0).then_some(status >> 8 & 0xff),
            signal: (signal != 0).then_some(signal),
            core_dumped: status & 0x80 != 0,
            ..Self::default()
        }
    }

    /// What the container's runtime will show, where a container ends.
    pub fn runtime_code(&self) -> Option<u32> {
        let by_signal = self.signal.map(|signal| 128 + signal);
        self.code.or(by_signal).filter(|_| self.container_end)
    }

    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "code",
            ty: Type::Number,
            doc: "Exit code, 0 to 255; null where a signal ended it",
            get: |exit| exit.code.into(),
        },
        Field {
            name: "signal",
            ty: Type::Text,
            doc: "Name of the signal that ended it; null: none did",
            get: |exit| exit.signal.map(signal_name).into(),
        },
        Field {
            name: "core_dumped",
            ty: Type::Flag,
            doc: "Whether it left a core dump",
            get: |exit| exit.core_dumped.into(),
        },
        Field {
            name: "runtime_ns",
            ty: Type::Number,
            doc: "Nanoseconds from its fork to its end",
            get: |exit| exit.runtime_ns.into(),
        },
        Field {
            name: "container_end",
            ty: Type::Flag,
            doc: "Whether it was the first process of its container's pid namespace: the container \
                  ends with it",
            get: |exit| exit.container_end.into(),
        },
        Field {
            name: "runtime_code",
            ty: Type::Number,
            doc: "The exit code that the container's runtime will show: 128 and the signal's number \
                  where one ended it; null where no container ends",
            get: |exit| exit.runtime_code().into(),
        },
        Field {
            name: "oom_kills_inside",
            ty: Type::Number,
            doc: "OOM kills of other processes of the container since it started, as far as ctrace \
                  saw them; null where no container ends",
            get: |exit| exit.oom_kills_inside.into(),
        },
        Field {
            name: "cause",
            ty: Type::Object,
            doc: "Why it ended",
            get: |exit| {
                let cause = exit.cause.as_deref();
                cause.map_or(Value::Null, |cause| object(Cause::FIELDS, cause))
            },
        },
    ];
}

impl Detail for Exec {
    fn type_name(&self) -> &'static str {
        "exec"
    }

    fn key(&self) -> &'static str {
        "exec"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        Severity::Normal
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let file = self.filename.as_deref().unwrap_or("(unknown file)");
        let args: Vec<_> = self.args.iter().skip(1).map(|arg| text::quoted(arg)).collect();
        let cut = if self.args_cut_bytes > 0 { " …" } else { "" };
        format!("{process} {file} {}{cut}", args.join(" ")).trim_end().to_owned()
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }
}

impl Detail for Exit {
    fn type_name(&self) -> &'static str {
        "exit"
    }

    fn key(&self) -> &'static str {
        "exit"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        match self.signal {
            Some(_) => Severity::Bad,
            None => Severity::Normal,
        }
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let how = match (self.code, self.signal) {
            (_, Some(signal)) => format!("killed by {}", signal_name(signal)),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => "ended".to_owned(),
        };
        let core = if self.core_dumped { ", core dumped" } else { "" };
        let after = self.runtime_ns.map(|ns| format!(" after {}", text::age(ns)));
        // An exit code speaks for itself.
        let is_plain = |cause: &&Cause| cause.kind == CauseKind::Exit && cause.signal.is_none();
        let cause = self.cause.as_deref().filter(|cause| !is_plain(cause));
        let cause = cause.map(|cause| format!(": {}", cause.text())).unwrap_or_default();
        let end = match self.runtime_code() {
            Some(code) => format!("; the container ends, its runtime shows {code}"),
            None => String::new(),
        };
        let inside = match self.oom_kills_inside {
            None | Some(0) => String::new(),
            Some(1) => "; 1 OOM kill inside it before".to_owned(),
            Some(count) => format!("; {count} OOM kills inside it before"),
        };
        format!("{process} {how}{core}{}{cause}{end}{inside}", after.unwrap_or_default())
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }

    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        self.cause.iter_mut().flat_map(|cause| cause.subjects_mut()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_wait() {
        let exit = |status| Exit::of_status(status);
        assert_eq!((exit(0).code, exit(0).signal), (Some(0), None));
        assert_eq!((exit(3 << 8).code, exit(3 << 8).signal), (Some(3), None));
        assert_eq!((exit(9).code, exit(9).signal), (None, Some(9)));
        assert!(exit(11 | 0x80).core_dumped && !exit(11).core_dumped);
    }

    #[test]
    fn headlines_of_ends() {
        use crate::event::{OomCause, Process, SignalCause, SignalVia};
        let process = |pid, comm: &str| {
            let comm = Some(comm.to_owned());
            let process = Process { pid: Some(pid), comm, ..Process::default() };
            Subject { process, ..Subject::default() }
        };
        let java = process(77, "java");
        let end = |status, container_end, cause: Cause| Exit {
            runtime_ns: Some(3 * 3_600_000_000_000),
            container_end,
            cause: Some(cause.into()),
            oom_kills_inside: container_end.then_some(0),
            ..Exit::of_status(status)
        };
        let text = |exit: Exit| exit.headline(Some(&java));
        let oom = OomCause { id: 5, why: "limit of /docker/1 hit".into(), cgroup: None };
        let by_oom = Cause { kind: CauseKind::Oom, oom: Some(oom), ..Cause::default() };
        assert_eq!(
            text(end(9, true, by_oom)),
            "java[77] killed by SIGKILL after 3 h: the OOM killer (limit of /docker/1 hit); the \
             container ends, its runtime shows 137"
        );
        let stop = SignalCause {
            number: 15,
            code: 0,
            via: SignalVia::Process,
            sender: Some(process(5, "runc")),
            is_own: false,
            init: None,
            address: None,
            syscall: None,
            before_ns: 2_500_000_000,
        };
        let kill = |kind, by_runtime| Cause {
            kind,
            signal: Some(stop.clone()),
            by_runtime: Some(by_runtime),
            ..Cause::default()
        };
        assert_eq!(
            text(end(15, false, kill(CauseKind::Signal, false))),
            "java[77] killed by SIGTERM after 3 h: runc[5] (unknown cgroup)"
        );
        let asked =
            Exit { oom_kills_inside: Some(2), ..end(143 << 8, true, kill(CauseKind::Exit, true)) };
        assert_eq!(
            text(asked),
            "java[77] exit code 143 after 3 h: asked to by SIGTERM from the container runtime, \
             runc[5] (unknown cgroup) 2.500 s before; the container ends, its runtime shows 143; 2 \
             OOM kills inside it before"
        );
        let own = Cause { kind: CauseKind::Exit, ..Cause::default() };
        assert_eq!(text(end(1 << 8, false, own)), "java[77] exit code 1 after 3 h");
        assert_eq!(
            text(end(9, false, Cause::default())),
            "java[77] killed by SIGKILL after 3 h: who sent it was not seen"
        );
    }
}
