//! A task sleeps and no signal wakes it.

use super::{
    Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
    text,
};

/// A task is in uninterruptible sleep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Since it went to sleep, up to the event.
    pub blocked_ns: u64,
    /// The CPU that it was on.
    pub cpu: u32,
    /// Whether a fatal signal would end the sleep.
    pub is_killable: bool,
    /// Functions of the kernel, innermost first; empty: the stack cannot be read.
    pub stack: Vec<String>,
    /// What it waits for, by its stack. Absent: the stack does not tell.
    pub wait: Option<&'static str>,
    /// It is a thread of the kernel's own.
    pub is_kernel_thread: bool,
}

impl Blocked {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "blocked_ns",
            ty: Type::Number,
            doc: "With type blocked: nanoseconds since the task went to sleep, which it still does; \
                  less what interrupts and the hypervisor took of its CPU before ctrace first saw \
                  it, and without the time that the machine was suspended",
            get: |blocked| blocked.blocked_ns.into(),
        },
        Field {
            name: "cpu",
            ty: Type::Number,
            doc: "The CPU that the task got, or was on when it went to sleep",
            get: |blocked| blocked.cpu.into(),
        },
        Field {
            name: "state",
            ty: Type::Text,
            doc: "With type blocked: uninterruptible, or killable where a fatal signal would end it",
            get: |blocked| if blocked.is_killable { "killable" } else { "uninterruptible" }.into(),
        },
        Field {
            name: "wait",
            ty: Type::Text,
            doc: "With type blocked: what it waits for, by the functions of its stack; null: they \
                  do not tell",
            get: |blocked| blocked.wait.into(),
        },
        Field {
            name: "stack",
            ty: Type::Texts,
            doc: "With type blocked: functions of the kernel that it is in, innermost first, with \
                  their modules; empty: they cannot be read",
            get: |blocked| Value::List(blocked.stack.iter().map(Into::into).collect()),
        },
        Field {
            name: "kernel_thread",
            ty: Type::Flag,
            doc: "With type blocked: whether it is a thread of the kernel's own",
            get: |blocked| blocked.is_kernel_thread.into(),
        },
    ];
}

impl Detail for Blocked {
    fn type_name(&self) -> &'static str {
        "blocked"
    }

    fn key(&self) -> &'static str {
        "sched"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        Severity::Bad
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let kernel = if self.is_kernel_thread { " (kernel thread)" } else { "" };
        let wait = self.wait.map(|wait| format!(", waits for {wait}")).unwrap_or_default();
        let where_to = self.stack.first().map(|inner| format!(" in {inner}")).unwrap_or_default();
        let killable = if self.is_killable { ", killable" } else { "" };
        let time = text::duration(self.blocked_ns);
        format!("{process}{kernel} blocked for {time}{wait}{where_to}{killable}")
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        match self.stack.is_empty() {
            true => Vec::new(),
            false => vec![Evidence { label: "stack", text: self.stack.join(" < ") }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Process;

    #[test]
    fn headlines() {
        let process = Process { comm: Some("dd".into()), pid: Some(7), ..Process::default() };
        let subject = Subject { process, ..Subject::default() };
        let mut blocked = Blocked { blocked_ns: 2_000_000_000, ..Blocked::default() };
        assert_eq!(blocked.headline(Some(&subject)), "dd[7] blocked for 2.000 s");
        assert!(blocked.evidence(Some(&subject)).is_empty());
        blocked.stack = vec!["schedule".into(), "x".into()];
        blocked.wait = Some("a lock");
        blocked.is_killable = true;
        assert_eq!(
            blocked.headline(Some(&subject)),
            "dd[7] blocked for 2.000 s, waits for a lock in schedule, killable"
        );
        assert_eq!(blocked.evidence(Some(&subject))[0].text, "schedule < x");
    }
}
