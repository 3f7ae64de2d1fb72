//! Cgroups that use up their CPU quota and have to wait: `cpu.stat`.

use aya::Ebpf;

use super::{
    Asked, Decoder, Hook, Probe, ProbePlan, Strategy, Unsupported,
    sampled::{Controller, Counted, Place, Sampler},
};
use crate::{
    event::{self, Payload},
    kernel::{
        Facts,
        limits::{self, Kept, Throttled},
    },
};

pub struct Throttle;

impl Probe for Throttle {
    fn name(&self) -> &'static str {
        "throttle"
    }

    fn doc(&self) -> &'static str {
        "cgroups that have used up their CPU quota and had to wait"
    }

    fn events(&self) -> &'static [&'static str] {
        &["throttle"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        plan(facts, "cpu", "cpu.stat", "throttled periods, once a second")
    }

    fn decoder(
        &self,
        facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        sampler::<Quotas>(facts, "cpu")
    }
}

/// The plan of a probe that reads a file of a controller's cgroups.
pub(super) fn plan(
    facts: &Facts,
    controller: &str,
    file: &'static str,
    gives: &'static str,
) -> Result<ProbePlan, Unsupported> {
    if Controller::of(&facts.cgroups, controller).is_none() {
        let feature = format!("a mounted hierarchy with the {controller} controller");
        return Err(Unsupported { feature, min_kernel: None });
    }
    let strategy = Some(Strategy { name: "file", programs: Vec::new() });
    let lost = Some("what a cgroup counts in its last second: its files go with it");
    let hook =
        Hook { name: file, strategy, required: false, fallback: None, gives, lost, why: None };
    Ok(ProbePlan { hooks: vec![hook], ..ProbePlan::default() })
}

pub(super) fn sampler<C: Counted>(
    facts: &Facts,
    controller: &str,
) -> anyhow::Result<Box<dyn Decoder>> {
    let found = Controller::of(&facts.cgroups, controller);
    let found = found.ok_or_else(|| anyhow::anyhow!("no {controller} controller is mounted"))?;
    Ok(Box::new(Sampler::<C>::new(found)))
}

struct Quotas;

impl Counted for Quotas {
    type Counts = Throttled;
    type Files = Kept;

    fn is_limited(place: &Place) -> bool {
        limits::quota(place.directory, place.version).is_some()
    }

    fn open(place: &Place) -> Option<Kept> {
        Kept::open(place.directory, "cpu.stat")
    }

    fn read(file: &Kept) -> Option<Throttled> {
        file.read(limits::parse_cpu_stat)
    }

    fn event(before: Throttled, now: Throttled, span_ns: u64, place: &Place) -> Option<Payload> {
        let throttled_periods = now.throttled_periods.saturating_sub(before.throttled_periods);
        let throttled_ns = now.throttled_ns.saturating_sub(before.throttled_ns);
        // A wait is counted when it begins, its time when it has ended.
        if throttled_periods == 0 && throttled_ns == 0 {
            return None;
        }
        let quota = limits::quota(place.directory, place.version);
        Some(Payload::Throttle(event::Throttle {
            periods: now.periods.saturating_sub(before.periods),
            throttled_periods,
            throttled_ns,
            quota_ns: quota.map(|quota| quota.quota_ns),
            period_ns: quota.map(|quota| quota.period_ns),
            span_ns,
        }))
    }
}
