//! OOM kills: `oom:mark_victim`, with `out_of_memory` where a hook on a function is allowed.

mod constraint;
mod decode;
mod log;

use aya::Ebpf;
use ctrace_common::{
    event::oom::MEMORY_EVENTS,
    offsets::{MISSING, OomOffsets},
};
use zerocopy::IntoBytes;

use super::{
    Asked, Attach, Decoder, Hook, Probe, ProbePlan, Program, Strategy, Unsupported,
    offsets::{any_member, member},
};
use crate::kernel::{ArgType, Btf, Facts, Features};

pub struct Oom;

impl Probe for Oom {
    fn name(&self) -> &'static str {
        "oom"
    }

    fn doc(&self) -> &'static str {
        "victims of the kernel's OOM killer, with the limit that was hit"
    }

    fn events(&self) -> &'static [&'static str] {
        &["oom_kill"]
    }

    fn plan(&self, facts: &Facts, _asked: &Asked) -> Result<ProbePlan, Unsupported> {
        let signature = signature(&facts.btf)?;
        if facts.features.raw_tp.is_err() {
            return Err(Unsupported { feature: "raw_tp".to_owned(), min_kernel: Some("4.17") });
        }
        let offsets = offsets(&facts.btf, signature)?;
        let mut hooks = vec![Hook {
            name: "oom:mark_victim",
            strategy: Some(raw_tracepoint("mark_victim", "mark_victim")),
            required: true,
            fallback: None,
            gives: "every victim",
            lost: None,
            why: None,
        }];
        if signature == Signature::Pid {
            hooks.push(Hook {
                name: "signal:signal_generate",
                strategy: Some(raw_tracepoint("oom_signal_generate", "signal_generate")),
                required: false,
                fallback: None,
                gives: "the victim's task: mark_victim has only its pid on this kernel",
                lost: None,
                why: None,
            });
        }
        hooks.push(out_of_memory(&facts.features));
        Ok(ProbePlan { globals: vec![("OOM_OFFSETS", offsets.as_bytes().to_vec())], hooks })
    }

    fn decoder(
        &self,
        facts: &Facts,
        _asked: &Asked,
        _object: &mut Ebpf,
    ) -> anyhow::Result<Box<dyn Decoder>> {
        Ok(Box::new(decode::OomDecoder::new(facts)))
    }
}

fn raw_tracepoint(program: &'static str, tracepoint: &'static str) -> Strategy {
    let attach = Attach::RawTracepoint(tracepoint);
    Strategy { name: "raw_tp", programs: vec![Program { name: program, attach }] }
}

/// The hook that reads `oom_control`.
fn out_of_memory(features: &Features) -> Hook {
    const FUNCTION: &str = "out_of_memory";
    let strategy = |name, enter, leave| {
        let program = |(name, attach)| Program { name, attach };
        // Without the one that forgets, the one that remembers must not run.
        Some(Strategy { name, programs: vec![program(leave), program(enter)] })
    };
    let (strategy, why) = match (&features.fentry, &features.kprobe) {
        (Ok(()), _) => (
            strategy(
                "fentry",
                ("out_of_memory", Attach::Fentry(FUNCTION)),
                ("out_of_memory_exit", Attach::Fexit(FUNCTION)),
            ),
            None,
        ),
        (Err(_), Ok(())) => (
            strategy(
                "kprobe",
                ("out_of_memory_kprobe", Attach::Kprobe(FUNCTION)),
                ("out_of_memory_kretprobe", Attach::Kprobe(FUNCTION)),
            ),
            None,
        ),
        (Err(fentry), Err(kprobe)) => (None, Some(format!("fentry: {fentry}; kprobe: {kprobe}"))),
    };
    Hook {
        name: FUNCTION,
        strategy,
        required: false,
        fallback: None,
        gives: "constraint, limiting cgroup, gfp_mask and order",
        lost: why.is_some().then_some(
            "the kernel's log stands in; where it is silent, its stack and OOM lock do, without \
             gfp_mask and order",
        ),
        why,
    }
}

/// What `mark_victim` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    /// `(struct task_struct *task, uid_t uid)`
    Task,
    /// `(int pid)`
    Pid,
}

/// Chosen by the prototype, never by the version: stable kernels have the change too.
fn signature(btf: &Btf) -> Result<Signature, Unsupported> {
    let missing = |feature: &str| Unsupported { feature: feature.to_owned(), min_kernel: None };
    let prototype = btf
        .tracepoint("mark_victim")
        .ok_or_else(|| missing("the tracepoint oom:mark_victim in the kernel's BTF"))?;
    match prototype.args.first() {
        Some(ArgType::PointerTo(name)) if name == "task_struct" => Ok(Signature::Task),
        Some(ArgType::Integer { .. }) => Ok(Signature::Pid),
        _ => Err(missing("a prototype of oom:mark_victim that ctrace knows")),
    }
}

fn offsets(btf: &Btf, signature: Signature) -> Result<OomOffsets, Unsupported> {
    let at = |ty, path| member(btf, ty, path);
    let (mm_rss, mm_rss_stride) = rss_stat(btf);
    // The program reads the counters in this order.
    let order = ["MM_FILEPAGES", "MM_ANONPAGES", "MM_SWAPENTS", "MM_SHMEMPAGES"];
    if !order.iter().enumerate().all(|(i, name)| btf.enum_value(name) == Some(i as i64)) {
        let feature = "the order of MM_FILEPAGES, MM_ANONPAGES, MM_SWAPENTS, MM_SHMEMPAGES";
        return Err(Unsupported { feature: feature.to_owned(), min_kernel: Some("4.5") });
    }
    let events_len = btf
        .member_size("mem_cgroup", "memory_events")
        .map_or(0, |bytes| (bytes / size_of::<u64>() as u32).min(MEMORY_EVENTS as u32));
    Ok(OomOffsets {
        mark_victim_task: (signature == Signature::Task).into(),
        mm_total_vm: at("mm_struct", "total_vm"),
        mm_pgtables: at("mm_struct", "pgtables_bytes"),
        mm_rss,
        mm_rss_stride,
        memcg_css: at("mem_cgroup", "css"),
        memcg_memory: at("mem_cgroup", "memory"),
        memcg_swap: any_member(btf, "mem_cgroup", &["memsw", "swap"]),
        memcg_oom_lock: at("mem_cgroup", "oom_lock"),
        memcg_under_oom: at("mem_cgroup", "under_oom"),
        memcg_oom_group: at("mem_cgroup", "oom_group"),
        memcg_events: at("mem_cgroup", "memory_events"),
        memcg_events_len: events_len,
        counter_usage: at("page_counter", "usage"),
        counter_max: at("page_counter", "max"),
        counter_failcnt: at("page_counter", "failcnt"),
        counter_parent: at("page_counter", "parent"),
        control_memcg: at("oom_control", "memcg"),
        control_gfp_mask: at("oom_control", "gfp_mask"),
        control_order: at("oom_control", "order"),
        control_constraint: at("oom_control", "constraint"),
        control_chosen: at("oom_control", "chosen"),
    })
}

/// Where the first resident-set counter is, and how far the next: `rss_stat` is a struct of plain
/// counts up to 6.1 and an array of `percpu_counter` from 6.2, of which the kernel's report takes
/// `count`.
fn rss_stat(btf: &Btf) -> (u32, u32) {
    if let Some(counts) = btf.offset("mm_struct", "rss_stat.count") {
        return (counts, size_of::<u64>() as u32);
    }
    let shape = btf.member_type_name("mm_struct", "rss_stat");
    match (btf.offset("mm_struct", "rss_stat"), shape.as_deref()) {
        (Some(array), Some("percpu_counter")) => {
            match (btf.offset("percpu_counter", "count"), btf.size_of("percpu_counter")) {
                (Some(count), Some(stride)) => (array + count, stride),
                _ => (MISSING, MISSING),
            }
        }
        _ => (MISSING, MISSING),
    }
}
