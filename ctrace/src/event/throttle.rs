//! A cgroup has used up its CPU quota and had to wait.

use super::{
    Detail, Evidence, Subject,
    field::{Field, Type, Value, object},
    text::duration,
};

/// Periods in which a cgroup had to wait for its quota, since its last such event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Periods in which it had anything to run.
    pub periods: u64,
    pub throttled_periods: u64,
    /// The sum over the CPUs.
    pub throttled_ns: u64,
    /// Absent: the quota was lifted meanwhile, or the cgroup is gone.
    pub quota_ns: Option<u64>,
    pub period_ns: Option<u64>,
    /// What the figures are of.
    pub span_ns: u64,
}

/// What `span_ns` is, of all events that sum up.
pub(super) const SPAN_DOC: &str = "Nanoseconds that the counts are of: since the cgroup's last such event, else since ctrace \
     knows the cgroup or its limit";

impl Throttle {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "periods",
            ty: Type::Number,
            doc: "Periods in which the cgroup had anything to run",
            get: |throttle| throttle.periods.into(),
        },
        Field {
            name: "throttled_periods",
            ty: Type::Number,
            doc: "Those in which its quota was used up and it had to wait",
            get: |throttle| throttle.throttled_periods.into(),
        },
        Field {
            name: "throttled_ns",
            ty: Type::Number,
            doc: "Nanoseconds that it waited: the sum over the CPUs, as cpu.stat has it",
            get: |throttle| throttle.throttled_ns.into(),
        },
        Field {
            name: "quota_ns",
            ty: Type::Number,
            doc: "CPU time that it may use in each period, of all CPUs together; null: the quota \
                  was lifted, or the cgroup is gone by now",
            get: |throttle| throttle.quota_ns.into(),
        },
        Field {
            name: "period_ns",
            ty: Type::Number,
            doc: "Length of a period; null as quota_ns",
            get: |throttle| throttle.period_ns.into(),
        },
        Field {
            name: "span_ns",
            ty: Type::Number,
            doc: SPAN_DOC,
            get: |throttle| throttle.span_ns.into(),
        },
    ];
}

impl Detail for Throttle {
    fn type_name(&self) -> &'static str {
        "throttle"
    }

    fn key(&self) -> &'static str {
        "throttle"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn headline(&self, _subject: Option<&Subject>) -> String {
        let Throttle { periods, throttled_periods, throttled_ns, quota_ns, period_ns, span_ns } =
            self;
        let quota = quota_ns.zip(*period_ns).map(|(quota, period)| {
            let cpus = quota as f64 / period as f64;
            format!(": quota {cpus:.2} CPUs ({} in {})", duration(quota), duration(period))
        });
        format!(
            "{throttled_periods} of {periods} periods throttled, waited {} in {}{}",
            duration(*throttled_ns),
            duration(*span_ns),
            quota.unwrap_or_default()
        )
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
        let throttle = Throttle {
            periods: 100,
            throttled_periods: 40,
            throttled_ns: 1_435_184_544,
            quota_ns: Some(20_000_000),
            period_ns: Some(100_000_000),
            span_ns: 10_000_000_000,
        };
        let expected = "40 of 100 periods throttled, waited 1.435 s in 10.000 s: quota 0.20 CPUs \
                        (20.000 ms in 100.000 ms)";
        assert_eq!(throttle.headline(None), expected);
        let gone = Throttle { quota_ns: None, period_ns: None, ..throttle };
        assert_eq!(gone.headline(None), expected.split(": ").next().expect("a start"));
    }
}
