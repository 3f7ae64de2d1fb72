//! A task waited for a CPU.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    subject_value, text,
};

/// A task got a CPU after it had waited for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunqDelay {
    /// From runnable to running; of several waits of the longest.
    pub delay_ns: u64,
    /// Of how many waits this tells, of tasks of the same container or cgroup.
    pub count: u64,
    /// All of them together.
    pub sum_ns: u64,
    /// The CPU that it got.
    pub cpu: u32,
    /// It had been running until it waited; else it had been asleep. Absent: unknown.
    pub preempted: Option<bool>,
    /// The CPU quota of its cgroup, or of one above, was used up in the meantime. Absent: unknown.
    pub throttled: Option<bool>,
    /// The task that ran on the CPU just before; absent: the CPU was idle.
    pub before: Option<Box<Subject>>,
}

impl Default for RunqDelay {
    fn default() -> Self {
        Self {
            delay_ns: 0,
            count: 1,
            sum_ns: 0,
            cpu: 0,
            preempted: None,
            throttled: None,
            before: None,
        }
    }
}

impl RunqDelay {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "delay_ns",
            ty: Type::Number,
            doc: "With type runq_delay: nanoseconds from runnable to running, on whatever CPUs it \
                  waited",
            get: |delay| delay.delay_ns.into(),
        },
        Field {
            name: "count",
            ty: Type::Number,
            doc: "With type runq_delay: of how many waits of tasks of this container or cgroup this \
                  is the longest. The first is told at once, what follows once a second (--no-fold: \
                  each)",
            get: |delay| delay.count.into(),
        },
        Field {
            name: "sum_ns",
            ty: Type::Number,
            doc: "With type runq_delay: nanoseconds that all of them waited",
            get: |delay| delay.sum_ns.into(),
        },
        Field {
            name: "cpu",
            ty: Type::Number,
            doc: "The CPU that the task got, or was on when it went to sleep",
            get: |delay| delay.cpu.into(),
        },
        Field {
            name: "preempted",
            ty: Type::Flag,
            doc: "With type runq_delay: whether it had been running until it waited, and not \
                  asleep; null: unknown",
            get: |delay| delay.preempted.into(),
        },
        Field {
            name: "throttled",
            ty: Type::Flag,
            doc: "With type runq_delay: whether a CPU quota of its cgroup, or of one above, was \
                  used up in the meantime, so that no CPU would have helped; null: unknown, as where \
                  it moved to another CPU, or slept since it last ran and the quota was used up \
                  since then",
            get: |delay| delay.throttled.into(),
        },
        Field {
            name: "before",
            ty: Type::Object,
            doc: "With type runq_delay: the task that ran on the CPU just before; null: the CPU was \
                  idle",
            get: |delay| delay.before.as_deref().map_or(Value::Null, subject_value),
        },
    ];
}

impl Detail for RunqDelay {
    fn type_name(&self) -> &'static str {
        "runq_delay"
    }

    fn key(&self) -> &'static str {
        "sched"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let process = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let Self { delay_ns, count, sum_ns, cpu, preempted: _, throttled, before } = self;
        let why = match (throttled, before) {
            (Some(true), _) => ": its CPU quota was used up".to_owned(),
            (_, Some(before)) => {
                format!(" after {} of {}", before.process.label(), before.label())
            }
            (_, None) => ", which was idle".to_owned(),
        };
        let others = match count {
            1 => String::new(),
            _ => format!(" (the longest of {count} waits, {} in all)", text::duration(*sum_ns)),
        };
        format!("{process} waited {} for CPU {cpu}{why}{others}", text::duration(*delay_ns))
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }

    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        self.before.as_deref_mut().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Process;

    fn process(comm: &str, pid: u32) -> Process {
        Process { comm: Some(comm.into()), pid: Some(pid), ..Process::default() }
    }

    #[test]
    fn headlines() {
        let subject = Subject { process: process("web", 7), ..Subject::default() };
        let hog = Subject { process: process("hog", 9), ..Subject::default() };
        let mut delay = RunqDelay { delay_ns: 25_000_000, cpu: 3, ..RunqDelay::default() };
        let headline = |delay: &RunqDelay| delay.headline(Some(&subject));
        assert_eq!(headline(&delay), "web[7] waited 25.000 ms for CPU 3, which was idle");
        delay.before = Some(Box::new(hog));
        assert_eq!(
            headline(&delay),
            "web[7] waited 25.000 ms for CPU 3 after hog[9] of unknown cgroup"
        );
        delay.throttled = Some(true);
        let expected = "web[7] waited 25.000 ms for CPU 3: its CPU quota was used up";
        assert_eq!(headline(&delay), expected);
        (delay.throttled, delay.before, delay.count, delay.sum_ns) = (None, None, 3, 61_000_000);
        let expected = "web[7] waited 25.000 ms for CPU 3, which was idle (the longest of 3 waits, \
                        61.000 ms in all)";
        assert_eq!(headline(&delay), expected);
    }
}
