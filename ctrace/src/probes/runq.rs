//! Tasks that waited for a CPU: `sched:sched_switch`, with what the kernel keeps of each task.

mod folds;

use aya::Ebpf;
use ctrace_common::{
    Kind,
    event::runq::{self, RunqSettings},
    offsets::{MISSING, SchedOffsets},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    Asked, Attach, DecodeError, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
    offsets,
};
use crate::{
    event::{Payload, RunqDelay, Subject},
    kernel::Facts,
};

pub struct Runq;

impl Probe for Runq {
    fn name(&self) -> &'static str {
        "runq"
    }

    fn doc(&self) -> &'static str {
        "tasks that waited long for a CPU (--runq-slower), and who ran instead"
    }

    fn events(&self) -> &'static [&'static str] {
        &["runq_delay"]
    }

    fn plan(&self, facts: &Facts, asked: &Asked) -> Result<ProbePlan, Unsupported> {
        if facts.features.tp_btf.is_err() {
            return Err(Unsupported { feature: "tp_btf".to_owned(), min_kernel: Some("5.5") });
        }
        if !facts.keeps_sched_info {
            let feature = "what the scheduler keeps of each task (CONFIG_SCHED_INFO)".to_owned();
            return Err(Unsupported { feature, min_kernel: None });
        }
        let offsets = offsets::sched(&facts.btf);
        check(&offsets)?;
        let slower = if asked.all { 0 } else { asked.runq_slower.as_nanos() };
        let settings = RunqSettings {
            slower_ns: slower.try_into().unwrap_or(u64::MAX),
            hierarchy_v1: facts.cgroups.identity_v1().map_or(0, |(hierarchy, _)| hierarchy.id),
            reserved: 0,
        };
        // Where the kernel refuses a program, other probes are to run all the same.
        let hook = |name, (program, tracepoint), gives| {
            let program = Program { name: program, attach: Attach::BtfTracepoint(tracepoint) };
            let strategy = Some(Strategy { name: "tp_btf", programs: vec![program] });
            Hook { name, strategy, required: false, fallback: None, gives, lost: None, why: None }
        };
        let mut hooks = vec![hook(
            "sched:sched_switch",
            ("runq_switch", "sched_switch"),
            "how long tasks wait for a CPU",
        )];
        if offsets.task_sched_delayed != MISSING {
            hooks.push(hook(
                "sched:sched_migrate_task",
                ("runq_migrate", "sched_migrate_task"),
                "sleep told from waiting where a sleeping task is moved to another CPU",
            ));
        }
        Ok(ProbePlan {
            globals: vec![
                ("SCHED_OFFSETS", offsets.as_bytes().to_vec()),
                ("RUNQ_SETTINGS", settings.as_bytes().to_vec()),
            ],
            hooks,
        })
    }

    fn decoder(
        &self,
        _facts: &Facts,
        asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        let tells_each = asked.all || asked.no_fold || asked.has_conditions;
        let folds = (!tells_each).then(folds::Folds::default);
        Ok(Box::new(RunqDecoder { folds }))
    }
}

/// The program reads all of these without asking whether they are there.
fn check(offsets: &SchedOffsets) -> Result<(), Unsupported> {
    for (offset, name) in [
        (offsets.task_pcount, "task_struct.sched_info.pcount"),
        (offsets.task_run_delay, "task_struct.sched_info.run_delay"),
        (offsets.task_last_queued, "task_struct.sched_info.last_queued"),
        (offsets.task_nvcsw, "task_struct.nvcsw"),
        (offsets.task_cfs_rq, "task_struct.se.cfs_rq (CONFIG_FAIR_GROUP_SCHED)"),
        (offsets.cfs_rq_rq, "cfs_rq.rq (CONFIG_FAIR_GROUP_SCHED)"),
        (offsets.rq_clock, "rq.clock"),
    ] {
        if offset == MISSING {
            let feature = format!("{name} in the kernel's BTF");
            return Err(Unsupported { feature, min_kernel: None });
        }
    }
    Ok(())
}

struct RunqDecoder {
    /// Absent: each wait is told.
    folds: Option<folds::Folds>,
}

impl Decoder for RunqDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::RunqDelay]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let short = DecodeError::Short { got: record.len(), want: size_of::<runq::RunqDelay>() };
        let (record, _) = runq::RunqDelay::read_from_prefix(record).map_err(|_| short)?;
        let runq::RunqDelay { header: _, task, before, delay_ns, cpu, flags } = record;
        let known = |has, bit| (flags & has != 0).then_some(flags & bit != 0);
        let payload = RunqDelay {
            delay_ns,
            sum_ns: delay_ns,
            count: 1,
            cpu,
            preempted: known(runq::RunqDelay::HAS_PREEMPTED, runq::RunqDelay::PREEMPTED),
            throttled: known(runq::RunqDelay::HAS_THROTTLED, runq::RunqDelay::THROTTLED),
            before: (before.tid != 0).then(|| Box::new(Subject::of_record(&before, None))),
        };
        Ok((Subject::of_record(&task, None), Payload::RunqDelay(payload)))
    }

    fn shows(&mut self, subject: &Subject, payload: &Payload) -> bool {
        match (&mut self.folds, payload) {
            (Some(folds), Payload::RunqDelay(delay)) => folds.tells(subject, delay),
            _ => true,
        }
    }

    fn tick(&mut self, _now_ns: u64) -> Vec<(Subject, Payload)> {
        let told = self.folds.as_mut().map(folds::Folds::tick).unwrap_or_default();
        told.into_iter().map(|(subject, delay)| (subject, Payload::RunqDelay(delay))).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    fn decode(record: &runq::RunqDelay) -> (Subject, RunqDelay) {
        match (RunqDecoder { folds: None }).decode(record.as_bytes()) {
            Ok((subject, Payload::RunqDelay(delay))) => (subject, delay),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_waited_and_who_ran() {
        let mut record = runq::RunqDelay::new_zeroed();
        record.task.tgid = 7;
        record.delay_ns = 21_000_000;
        record.cpu = 1;
        let (subject, delay) = decode(&record);
        assert_eq!(subject.process.pid, Some(7));
        let idle =
            RunqDelay { delay_ns: 21_000_000, sum_ns: 21_000_000, cpu: 1, ..RunqDelay::default() };
        assert_eq!(delay, idle, "nothing ran, and nothing is known");
        record.before.tgid = 8;
        record.before.tid = 9;
        record.flags = runq::RunqDelay::HAS_PREEMPTED
            | runq::RunqDelay::HAS_THROTTLED
            | runq::RunqDelay::THROTTLED;
        let (_, delay) = decode(&record);
        assert_eq!((delay.preempted, delay.throttled), (Some(false), Some(true)));
        assert_eq!(delay.before.expect("a task").process.pid, Some(8));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let decoded = (RunqDecoder { folds: None }).decode(&bytes);
            prop_assert_eq!(decoded.is_ok(), bytes.len() >= size_of::<runq::RunqDelay>());
        }
    }
}
