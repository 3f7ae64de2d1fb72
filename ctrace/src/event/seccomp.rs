//! A seccomp filter denied a system call, or logged it.

use super::{
    Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
};

/// What became of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeccompAction {
    /// It returned an error without being made.
    Errno,
    /// SIGSYS.
    Trap,
    KillThread,
    KillProcess,
    /// It was made.
    Log,
    /// It returned an error without being made: a filter's, or that of a supervisor that listens to
    /// one.
    Unknown,
}

impl SeccompAction {
    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Errno => "errno",
            Self::Trap => "trap",
            Self::KillThread => "kill_thread",
            Self::KillProcess => "kill_process",
            Self::Log => "log",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the call was the thread's last.
    pub const fn is_kill(self) -> bool {
        matches!(self, Self::KillThread | Self::KillProcess)
    }
}

/// A seccomp filter's answer to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seccomp {
    /// Name in the table of its ABI; absent: the table has no such number.
    pub syscall: Option<&'static str>,
    pub syscall_nr: i64,
    /// The ABI that it was called by; absent: not known.
    pub arch: Option<&'static str>,
    /// The six registers that arguments are passed in; empty: not known.
    pub args: Vec<u64>,
    pub action: SeccompAction,
    /// Name of the error that it returned; absent: there is none, or it is not known.
    pub errno: Option<&'static str>,
    /// The filter's `SECCOMP_RET_DATA`: the error's number, or what the signal carries. Absent: not
    /// known.
    pub data: Option<u32>,
    /// Denials that this event stands for.
    pub count: u64,
    /// They are of more than one process.
    pub several_processes: bool,
    /// How it was seen.
    pub via: &'static str,
}

impl Seccomp {
    /// Whether it is the filter that returned ENOSYS, and not a kernel without the call.
    pub fn is_enosys(&self) -> bool {
        self.errno == Some("ENOSYS")
    }

    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "syscall",
            ty: Type::Text,
            doc: "Name of the system call; null: there is none of this number",
            get: |seccomp| seccomp.syscall.into(),
        },
        Field {
            name: "syscall_nr",
            ty: Type::Signed,
            doc: "Number of the system call, in the table of its ABI",
            get: |seccomp| Value::Signed(seccomp.syscall_nr),
        },
        Field {
            name: "arch",
            ty: Type::Text,
            doc: "The ABI that it was called by: x86_64, i386, x32, aarch64 or arm; null: not known",
            get: |seccomp| seccomp.arch.into(),
        },
        Field {
            name: "args",
            ty: Type::Numbers,
            doc: "The registers that arguments are passed in, first to sixth, whether the call has so \
                  many or not; of several denials those of the first. Empty: not known",
            get: |seccomp| Value::List(seccomp.args.iter().map(|arg| (*arg).into()).collect()),
        },
        Field {
            name: "action",
            ty: Type::Text,
            doc: "errno: it was not made and returned an error. trap: it was not made, SIGSYS was \
                  sent. kill_thread, kill_process: the filter ended it; from Linux 5.16 on a \
                  kill_thread of a process with one thread may be told as kill_process. log: it was \
                  made, and logged. unknown: it was not made and returned an error, a filter's or \
                  that of the supervisor of one (SECCOMP_RET_USER_NOTIF)",
            get: |seccomp| seccomp.action.name().into(),
        },
        Field {
            name: "errno",
            ty: Type::Text,
            doc: "Name of the error that it returned, such as EPERM; null: none, or not known",
            get: |seccomp| seccomp.errno.into(),
        },
        Field {
            name: "enosys_by_profile",
            ty: Type::Flag,
            doc: "Whether the filter returned ENOSYS: runtimes do so for system calls that are newer \
                  than the profile. The kernel may have the call",
            get: |seccomp| seccomp.is_enosys().into(),
        },
        Field {
            name: "data",
            ty: Type::Number,
            doc: "The filter's SECCOMP_RET_DATA: the error's number, or si_errno of the SIGSYS; null: \
                  not known",
            get: |seccomp| seccomp.data.into(),
        },
        Field {
            name: "count",
            ty: Type::Number,
            doc: "Denials that this event stands for: the first of its kind is told at once, what \
                  follows is counted and told once a second",
            get: |seccomp| seccomp.count.into(),
        },
        Field {
            name: "several_processes",
            ty: Type::Flag,
            doc: "Whether they are of more than one process of the same name and container; process \
                  is the first of them",
            get: |seccomp| seccomp.several_processes.into(),
        },
        Field {
            name: "via",
            ty: Type::Text,
            doc: "How it was seen. fexit: __secure_computing returned -1. pairing: the call had a \
                  sys_exit and no sys_enter. signal: SIGSYS. exit: the thread's end. fentry: \
                  audit_seccomp was called. audit: the kernel's audit log",
            get: |seccomp| seccomp.via.into(),
        },
    ];

    /// `mount(0x1, 0x2, 0x3)`: the first three arguments tell enough.
    fn call(&self) -> String {
        let name = match self.syscall {
            Some(name) => name.to_owned(),
            None => format!("syscall {}", self.syscall_nr),
        };
        let args: Vec<_> = self.args.iter().take(3).map(|arg| format!("{arg:#x}")).collect();
        let arch = match self.arch {
            Some("x86_64" | "aarch64") | None => String::new(),
            Some(other) => format!(" ({other})"),
        };
        match args.is_empty() {
            true => format!("{name}{arch}"),
            false => format!("{name}({}, …){arch}", args.join(", ")),
        }
    }

    /// What became of it.
    fn outcome(&self) -> String {
        let error = || match (self.errno, self.data) {
            (Some(errno), _) => errno.to_owned(),
            (None, Some(number)) => format!("error {number}"),
            (None, None) => "an error".to_owned(),
        };
        match self.action {
            SeccompAction::Errno if self.is_enosys() => {
                "denied with ENOSYS: by the profile, which may be older than the call, not by the \
                 kernel"
                    .to_owned()
            }
            SeccompAction::Errno if self.data == Some(0) => "skipped: returned 0".to_owned(),
            SeccompAction::Errno => format!("denied with {}", error()),
            SeccompAction::Trap => "trapped with SIGSYS".to_owned(),
            SeccompAction::KillThread => "the thread was killed for it".to_owned(),
            SeccompAction::KillProcess => "the process was killed for it".to_owned(),
            SeccompAction::Log => "logged and allowed".to_owned(),
            SeccompAction::Unknown => {
                format!("denied with {}, by the filter or its supervisor", error())
            }
        }
    }
}

impl Detail for Seccomp {
    fn type_name(&self) -> &'static str {
        "seccomp"
    }

    fn key(&self) -> &'static str {
        "seccomp"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        match self.action.is_kill() {
            true => Severity::Gone,
            false => Severity::Notable,
        }
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let several = if self.several_processes { " and others like it" } else { "" };
        let times = match self.count {
            0 | 1 => String::new(),
            count => format!(", {count} times"),
        };
        let headline = format!("{process}{several} {}: {}{times}", self.call(), self.outcome());
        headline.trim_start().to_owned()
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Seccomp {
        Seccomp {
            syscall: Some("mount"),
            syscall_nr: 165,
            arch: Some("x86_64"),
            args: vec![1, 2, 3, 4, 5, 6],
            action: SeccompAction::Errno,
            errno: Some("EPERM"),
            data: Some(1),
            count: 1,
            several_processes: false,
            via: "pairing",
        }
    }

    #[test]
    fn headlines() {
        let text = |seccomp: Seccomp| seccomp.headline(None);
        assert_eq!(text(denied()), "mount(0x1, 0x2, 0x3, …): denied with EPERM");
        assert_eq!(
            text(Seccomp { count: 7, several_processes: true, ..denied() }),
            "and others like it mount(0x1, 0x2, 0x3, …): denied with EPERM, 7 times"
        );
        let unnamed = Seccomp { syscall: None, syscall_nr: 9999, args: vec![], ..denied() };
        assert_eq!(text(unnamed), "syscall 9999: denied with EPERM");
        let enosys = text(Seccomp { errno: Some("ENOSYS"), data: Some(38), ..denied() });
        assert!(enosys.contains("by the profile"), "{enosys}");
        assert!(text(Seccomp { errno: None, data: Some(0), ..denied() }).ends_with("returned 0"));
        assert!(text(Seccomp { errno: None, data: Some(999), ..denied() }).ends_with("error 999"));
        assert!(text(Seccomp { arch: Some("i386"), ..denied() }).contains("(i386)"));
        let unknown = Seccomp { action: SeccompAction::Unknown, ..denied() };
        assert!(text(unknown).ends_with("EPERM, by the filter or its supervisor"));
    }

    #[test]
    fn only_enosys_is_the_profiles() {
        assert_eq!(denied().value(), object(Seccomp::FIELDS, &denied()));
        assert!(!denied().is_enosys());
        assert!(Seccomp { errno: Some("ENOSYS"), ..denied() }.is_enosys());
    }
}
