//! A process runs another program, and a process ends.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    text,
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
    ];
}

/// The name of a signal, as signal(7) has it: `SIGKILL`, `SIGRTMIN+3`.
pub fn signal_name(number: u32) -> String {
    // The kernel's first real-time signal; the C library keeps two for itself.
    const RT_MIN: u32 = 32;
    let signal =
        i32::try_from(number).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
    match signal {
        Some(signal) => signal.as_str().to_owned(),
        None if (RT_MIN..=64).contains(&number) => format!("SIGRTMIN+{}", number - RT_MIN),
        None => format!("signal {number}"),
    }
}

impl Detail for Exec {
    fn key(&self) -> &'static str {
        "exec"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
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
    fn key(&self) -> &'static str {
        "exit"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let how = match (self.code, self.signal) {
            (_, Some(signal)) => format!("killed by {}", signal_name(signal)),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => "ended".to_owned(),
        };
        let core = if self.core_dumped { ", core dumped" } else { "" };
        let after = self.runtime_ns.map(|ns| format!(" after {}", text::duration(ns)));
        let end = if self.container_end { ": the container ends" } else { "" };
        format!("{process} {how}{core}{}{end}", after.unwrap_or_default())
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
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
    fn names_of_signals() {
        for (number, name) in [
            (9, "SIGKILL"),
            (31, "SIGSYS"),
            (34, "SIGRTMIN+2"),
            (64, "SIGRTMIN+32"),
            (99, "signal 99"),
        ] {
            assert_eq!(signal_name(number), name);
        }
    }
}
