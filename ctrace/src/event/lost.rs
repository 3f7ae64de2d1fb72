//! Records that were lost.

use super::{
    Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
};

/// A gap in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Where they did not fit: a ring buffer, `held`, `output` or `audit`; `program`: none
    /// was made.
    pub ring: &'static str,
    /// What they were: [`ctrace_common::Kind::name`], or `event` behind the decoder; of `program` its
    /// name.
    pub kind: &'static str,
    pub count: u64,
}

impl Lost {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "ring",
            ty: Type::Text,
            doc: "Where they did not fit: rare, lifecycle or bulk (the kernel's ring buffers), held \
                  (too many wait for their containers' names) or output (the reader of ctrace's \
                  output is too slow); audit (the kernel's audit log); program: the kernel left \
                  a run of one of ctrace's programs out, in whose midst an interrupt came to the \
                  same hook",
            get: |lost| lost.ring.into(),
        },
        Field {
            name: "kind",
            ty: Type::Text,
            doc: "Which records were lost; which program",
            get: |lost| lost.kind.into(),
        },
        Field {
            name: "count",
            ty: Type::Number,
            doc: "How many since the last such event",
            get: |lost| lost.count.into(),
        },
    ];

    /// What makes the place larger.
    fn remedy(&self) -> &'static str {
        match self.ring {
            "rare" => "a larger --rare-ring-size holds more",
            "lifecycle" => "a larger --lifecycle-ring-size holds more",
            "held" => "too many wait for what their containers are called",
            "audit" => "the kernel's audit log was faster than its reader",
            "program" => "an interrupt came to a hook while its program ran",
            "bulk" => "a larger --bulk-ring-size holds more",
            _ => "whoever reads the output is too slow",
        }
    }
}

impl Detail for Lost {
    fn type_name(&self) -> &'static str {
        "lost"
    }

    fn key(&self) -> &'static str {
        "lost"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        Severity::Gap
    }

    fn headline(&self, _subject: Option<&Subject>) -> String {
        let Self { ring, kind, count } = self;
        match *ring {
            "program" => format!("{count} runs of {kind} left out: {}", self.remedy()),
            _ => format!("{count} {kind} records lost in {ring}: {}", self.remedy()),
        }
    }

    fn evidence(&self, _subject: Option<&Subject>) -> Vec<Evidence> {
        Vec::new()
    }
}
