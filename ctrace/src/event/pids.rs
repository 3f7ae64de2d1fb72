//! A cgroup has as many processes as it may have, and a fork was refused.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    text,
    throttle::SPAN_DOC,
};

/// Forks that were refused, since the cgroup's last such event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidsMax {
    pub hits: u64,
    /// The limit that is reached now; absent: none is any more.
    pub limit: Option<u64>,
    /// Processes and threads below that limit now.
    pub current: Option<u64>,
    /// Path of the cgroup that has the limit.
    pub limit_cgroup: Option<String>,
    /// What the count is of.
    pub span_ns: u64,
}

impl PidsMax {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "hits",
            ty: Type::Number,
            doc: "Forks that were refused: max of pids.events (pids.events.local where the kernel \
                  has it)",
            get: |pids| pids.hits.into(),
        },
        Field {
            name: "limit",
            ty: Type::Number,
            doc: "pids.max of limit_cgroup; null where no limit is reached any more",
            get: |pids| pids.limit.into(),
        },
        Field {
            name: "current",
            ty: Type::Number,
            doc: "Processes and threads in limit_cgroup, when the event was made",
            get: |pids| pids.current.into(),
        },
        Field {
            name: "limit_cgroup",
            ty: Type::Text,
            doc: "Path of the cgroup whose limit is reached when the event is made: the event's \
                  own, or one above; its own where none is reached any more; null where it has none",
            get: |pids| pids.limit_cgroup.as_ref().into(),
        },
        Field { name: "span_ns", ty: Type::Number, doc: SPAN_DOC, get: |pids| pids.span_ns.into() },
    ];
}

impl Detail for PidsMax {
    fn type_name(&self) -> &'static str {
        "pids_max"
    }

    fn key(&self) -> &'static str {
        "pids"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, _subject: Option<&Subject>) -> String {
        let times = if self.hits == 1 { "once".to_owned() } else { format!("{} times", self.hits) };
        let mut line = format!("fork refused {times}");
        if let (Some(limit), Some(cgroup)) = (self.limit, &self.limit_cgroup) {
            line += &format!(": pids.max of {} is {limit}", text::path(cgroup));
        }
        if let Some(current) = self.current {
            line += &format!(", {current} now");
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
        let pids = PidsMax {
            hits: 3,
            limit: Some(20),
            current: Some(18),
            limit_cgroup: Some("/pod".to_owned()),
            span_ns: 1,
        };
        assert_eq!(pids.headline(None), "fork refused 3 times: pids.max of /pod is 20, 18 now");
        let gone = PidsMax { hits: 1, ..PidsMax::default() };
        assert_eq!(gone.headline(None), "fork refused once");
    }
}
