//! A cgroup has reached a limit of its memory, and had to give pages back or wait.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    text::{bytes, duration},
    throttle::SPAN_DOC,
};

/// How often a cgroup reached its own limits, since its last such event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryPressure {
    /// Absent on v1, which has no such limit.
    pub high_events: Option<u64>,
    pub max_events: u64,
    /// `memory.high`; absent: none.
    pub high_bytes: Option<u64>,
    /// `memory.max` or `memory.limit_in_bytes`; absent: none.
    pub limit_bytes: Option<u64>,
    /// Absent: the cgroup is gone.
    pub usage_bytes: Option<u64>,
    /// Time that one of its tasks at least waited for memory; absent: the kernel does not say.
    pub some_ns: Option<u64>,
    /// Time that all of them did.
    pub full_ns: Option<u64>,
    /// What the counts and times are of.
    pub span_ns: u64,
}

impl MemoryPressure {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "high_events",
            ty: Type::Number,
            doc: "Times that memory.high was exceeded (high of memory.events.local); null on v1",
            get: |memory| memory.high_events.into(),
        },
        Field {
            name: "max_events",
            ty: Type::Number,
            doc: "Times that the limit was reached and pages had to be reclaimed: max of \
                  memory.events.local, memory.failcnt of v1",
            get: |memory| memory.max_events.into(),
        },
        Field {
            name: "high_bytes",
            ty: Type::Bytes,
            doc: "memory.high; null: none",
            get: |memory| memory.high_bytes.into(),
        },
        Field {
            name: "limit_bytes",
            ty: Type::Bytes,
            doc: "memory.max, memory.limit_in_bytes of v1; null: none",
            get: |memory| memory.limit_bytes.into(),
        },
        Field {
            name: "usage_bytes",
            ty: Type::Bytes,
            doc: "What is charged to the cgroup when the event is made; null: it is gone",
            get: |memory| memory.usage_bytes.into(),
        },
        Field {
            name: "some_ns",
            ty: Type::Number,
            doc: "Nanoseconds that some of its tasks waited for memory (PSI); null on v1, and where \
                  the kernel has no PSI",
            get: |memory| memory.some_ns.into(),
        },
        Field {
            name: "full_ns",
            ty: Type::Number,
            doc: "Nanoseconds that all of its tasks that had anything to do waited for memory (PSI)",
            get: |memory| memory.full_ns.into(),
        },
        Field {
            name: "span_ns",
            ty: Type::Number,
            doc: SPAN_DOC,
            get: |memory| memory.span_ns.into(),
        },
    ];
}

impl Detail for MemoryPressure {
    fn type_name(&self) -> &'static str {
        "memory_pressure"
    }

    fn key(&self) -> &'static str {
        "memory"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, _subject: Option<&Subject>) -> String {
        let times = |count| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let of = |limit: Option<u64>| limit.map(|limit| format!(" {}", bytes(limit)));
        let mut parts = Vec::new();
        if let Some(count) = self.high_events.filter(|count| *count > 0) {
            let limit = of(self.high_bytes).unwrap_or_default();
            parts.push(format!("memory.high{limit} exceeded {}", times(count)));
        }
        if self.max_events > 0 {
            let limit = of(self.limit_bytes).unwrap_or_default();
            parts.push(format!("limit{limit} reached {}", times(self.max_events)));
        }
        let mut line = format!("{} in {}", parts.join(", "), duration(self.span_ns));
        if let Some(usage) = self.usage_bytes {
            line += &format!(", {} in use", bytes(usage));
        }
        if let (Some(some), Some(full)) = (self.some_ns, self.full_ns) {
            line +=
                &format!("; waited for memory {} (all tasks {})", duration(some), duration(full));
        }
        line
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines() {
        let v2 = MemoryPressure {
            high_events: Some(12),
            max_events: 1,
            high_bytes: Some(16 << 20),
            limit_bytes: Some(24 << 20),
            usage_bytes: Some(23 << 20),
            some_ns: Some(1_200_000),
            full_ns: Some(0),
            span_ns: 2_000_000_000,
        };
        let expected = "memory.high 16.0 MiB exceeded 12 times, limit 24.0 MiB reached once in \
                        2.000 s, 23.0 MiB in use; waited for memory 1.200 ms (all tasks 0 ns)";
        assert_eq!(v2.headline(None), expected);
        let v1 = MemoryPressure { max_events: 7, span_ns: 1_000, ..MemoryPressure::default() };
        assert_eq!(v1.headline(None), "limit reached 7 times in 1.000 µs");
    }
}
