//! From the record to the event.

use ctrace_common::{
    Kind,
    event::oom::{MemcgLevel, OomKill},
};
use zerocopy::FromBytes;

use super::{
    constraint::{self, LevelFacts, NodeFacts, StackFacts},
    log::{LoggedCall, OomLog},
};
use crate::{
    background::Background,
    event::{Cgroup, CgroupKey, Constraint, Level, Memory, Oom, OomVia, Payload, Subject},
    kernel::{Facts, kallsyms::Symbols, kmsg::KilledLine},
    probes::{DecodeError, Decoder},
};

/// `enum oom_constraint`
const CONSTRAINT_CPUSET: u32 = 1;
const CONSTRAINT_MEMORY_POLICY: u32 = 2;
const CONSTRAINT_MEMCG: u32 = 3;
/// `MPOL_BIND`: <https://man7.org/linux/man-pages/man2/set_mempolicy.2.html>
const MPOL_BIND: u32 = 2;

/// Names of the counters in `memory.events`, in the order of `enum memcg_memory_event`.
const EVENT_NAMES: [&str; 6] = ["low", "high", "max", "oom", "oom_kill", "oom_group_kill"];
/// The one that v1 shows too, in `memory.oom_control`.
const OOM_KILL: usize = 4;

pub struct OomDecoder {
    page_size: u64,
    /// Names for the stack's addresses; being read while the first events come in.
    symbols: Background<Option<Symbols>>,
    nodes_with_memory: u64,
    lock_known: bool,
    log: OomLog,
    last: Option<Invocation>,
}

/// One call of the OOM killer: a group kill has several victims.
struct Invocation {
    id: u64,
    trigger: u32,
    constraint: Option<Constraint>,
    via: Option<OomVia>,
    hit: Option<CgroupKey>,
    logged_cgroup: Option<String>,
    gfp_mask: Option<u32>,
    order: Option<i32>,
}

impl OomDecoder {
    pub fn new(facts: &Facts) -> Self {
        Self {
            page_size: facts.page_size,
            symbols: Background::new(|| {
                Symbols::load(constraint::CALLERS, constraint::CALLER_PREFIXES).ok()
            }),
            nodes_with_memory: facts.nodes_with_memory,
            lock_known: facts.btf.offset("mem_cgroup", "oom_lock").is_some(),
            log: OomLog::open(),
            last: None,
        }
    }

    fn stack(&self, record: &OomKill) -> StackFacts {
        let Some(symbols) = self.symbols.get() else { return StackFacts::default() };
        let depth = (record.stack_len as usize).min(record.stack.len());
        constraint::read_stack(record.stack[..depth].iter().map(|frame| symbols.lookup(*frame)))
    }

    /// The id of this kill's invocation: that of the last event for a further victim of a group.
    fn invocation(&self, record: &OomKill, stack: StackFacts) -> u64 {
        match &self.last {
            Some(last) if stack.group_member && last.trigger == record.trigger.tid => last.id,
            _ => record.header.time_ns / 1000,
        }
    }

    fn pages(&self, pages: u64) -> u64 {
        pages.saturating_mul(self.page_size)
    }

    /// A limit in bytes; absent where the counter says "none".
    fn limit(&self, pages: u64) -> Option<u64> {
        // PAGE_COUNTER_MAX: include/linux/page_counter.h
        let none = i64::MAX as u64 / self.page_size;
        (pages < none).then(|| self.pages(pages))
    }

    fn levels(&self, record: &OomKill) -> Vec<Level> {
        let hierarchy = record.memory_hierarchy;
        let count = (record.level_count as usize).min(record.levels.len());
        let level = |(level, counts): (&MemcgLevel, &[u64; 9])| Level {
            cgroup: Cgroup::from(CgroupKey { hierarchy, id: level.cgroup }),
            limit_bytes: self.limit(level.max_pages),
            usage_bytes: self.pages(level.usage_pages),
            swap_limit_bytes: self.limit(level.swap_max_pages),
            swap_usage_bytes: Some(self.pages(level.swap_usage_pages)),
            // v2 shows no failcnt, and newer kernels do not count it there.
            failcnt: (hierarchy != 0).then_some(level.failcnt),
            oom_group: level.flags & MemcgLevel::OOM_GROUP != 0,
            events: EVENT_NAMES
                .into_iter()
                .zip(counts.iter().copied())
                .enumerate()
                .filter(|(index, _)| hierarchy == 0 || *index == OOM_KILL)
                .map(|(_, named)| named)
                .collect(),
        };
        record.levels[..count].iter().zip(&record.events).map(level).collect()
    }

    /// What the record itself says of constraint and level.
    fn judge(&self, record: &OomKill, levels: &[Level], stack: StackFacts) -> Verdict {
        let has = |flag| record.flags & flag != 0;
        if has(OomKill::HAS_CONTROL) {
            let constraint = match record.constraint {
                // An exiting task is chosen before the kernel works the constraint out.
                _ if record.oom_memcg != 0 => Constraint::Memcg,
                CONSTRAINT_MEMCG => Constraint::Memcg,
                CONSTRAINT_CPUSET => Constraint::Cpuset,
                CONSTRAINT_MEMORY_POLICY => Constraint::Mempolicy,
                _ => Constraint::Global,
            };
            let is_hit = |level: &Level| level.cgroup.key.id == record.oom_memcg;
            let hit = levels.iter().position(is_hit);
            return Verdict { constraint: Some(constraint), via: Some(OomVia::Hook), hit };
        }
        let nodes = NodeFacts {
            with_memory: self.nodes_with_memory,
            mems_allowed: has(OomKill::HAS_MEMS_ALLOWED).then_some(record.mems_allowed),
            bound: (has(OomKill::HAS_MEMPOLICY) && record.mempolicy_mode == MPOL_BIND)
                .then_some(record.mempolicy_nodes),
        };
        let v1 = record.memory_hierarchy != 0;
        let facts = |(wire, level): (&MemcgLevel, &Level)| LevelFacts {
            headroom: headroom(level, v1),
            locked: wire.flags & MemcgLevel::OOM_LOCK != 0,
            of_trigger: record.trigger_levels.contains(&level.cgroup.key.id),
        };
        let levels: Vec<_> = record.levels.iter().zip(levels).map(facts).collect();
        let (constraint, hit) = constraint::derive(&levels, stack.memcg, nodes, self.lock_known);
        let via = if stack.memcg.is_some() { OomVia::Stack } else { OomVia::Counters };
        Verdict { constraint, via: constraint.map(|_| via), hit }
    }
}

struct Verdict {
    constraint: Option<Constraint>,
    via: Option<OomVia>,
    hit: Option<usize>,
}

/// Bytes below the tightest limit that stops a charge.
fn headroom(level: &Level, v1: bool) -> Option<u64> {
    let memory = level.limit_bytes.map(|limit| limit.saturating_sub(level.usage_bytes));
    let memsw = level.swap_limit_bytes.zip(level.swap_usage_bytes).filter(|_| v1);
    memory.into_iter().chain(memsw.map(|(limit, usage)| limit.saturating_sub(usage))).min()
}

/// Whether it was the limit on memory and swap together that stopped the charge.
fn is_memsw(level: &Level) -> bool {
    let memory_left = level.limit_bytes.map(|limit| limit.saturating_sub(level.usage_bytes));
    level.cgroup.key.hierarchy != 0 && memory_left != headroom(level, true)
}

impl Decoder for OomDecoder {
    fn kinds(&self) -> &'static [Kind] {
        &[Kind::OomKill]
    }

    fn decode(&mut self, record: &[u8]) -> Result<(Subject, Payload), DecodeError> {
        let short = DecodeError::Short { got: record.len(), want: size_of::<OomKill>() };
        // Copied: a replayed record need not be aligned.
        let (record, _) = OomKill::read_from_prefix(record).map_err(|_| short)?;
        let has = |flag| record.flags & flag != 0;
        let stack = self.stack(&record);
        let levels = self.levels(&record);
        let Verdict { constraint, via, hit } = self.judge(&record, &levels, stack);

        let first = (!has(OomKill::LEVELS_OF_TRIGGER))
            .then(|| levels.first().map(|level| level.cgroup.key))
            .flatten();
        let subject = Subject::of_record(&record.victim, first);
        let trigger_memcg = record.trigger_levels[0];
        let trigger_key = CgroupKey { hierarchy: record.memory_hierarchy, id: trigger_memcg };
        // The kernel's report shows no counter below 0 either.
        let counter = |pages: i64| self.pages(pages.max(0) as u64);
        let memory = has(OomKill::HAS_MEMORY).then(|| Memory {
            total_vm: self.pages(record.memory.total_vm_pages),
            anon_rss: counter(record.memory.anon_rss_pages),
            file_rss: counter(record.memory.file_rss_pages),
            shmem_rss: counter(record.memory.shmem_rss_pages),
            swap: Some(counter(record.memory.swap_pages)),
            pgtables: Some(record.memory.pgtables_bytes),
        });
        let oom = Oom {
            id: self.invocation(&record, stack),
            constraint,
            via,
            trigger: Subject::of_record(
                &record.trigger,
                (trigger_memcg != 0).then_some(trigger_key),
            ),
            memory,
            oom_score_adj: has(OomKill::HAS_VICTIM).then_some(record.oom_score_adj),
            memsw: hit.is_some_and(|level| is_memsw(&levels[level])),
            levels,
            levels_truncated: has(OomKill::LEVELS_TRUNCATED),
            hit,
            logged_cgroup: None,
            gfp_mask: has(OomKill::HAS_CONTROL).then_some(record.gfp_mask),
            order: has(OomKill::HAS_CONTROL).then_some(record.order),
        };
        Ok((subject, Payload::OomKill(Box::new(oom))))
    }

    /// Holds what was derived against the kernel's log, which is right where it speaks; a further
    /// victim of a group has what its first victim had.
    fn complete(&mut self, subject: &Subject, payload: &mut Payload) {
        let Payload::OomKill(oom) = payload else { return };
        let (pid, task) = (subject.process.tid, subject.process.comm.as_deref());
        self.log.read();
        let group = self.last.as_ref().filter(|last| last.id == oom.id);
        if let Some(first) = group {
            oom.constraint = first.constraint;
            oom.via = first.via;
            oom.hit = oom.levels.iter().position(|level| Some(level.cgroup.key) == first.hit);
            oom.logged_cgroup = first.logged_cgroup.clone();
            (oom.gfp_mask, oom.order) = (first.gfp_mask, first.order);
        } else if let Some(call) = self.log.take_call(pid, task)
            && oom.via != Some(OomVia::Hook)
        {
            apply_call(oom, call);
        }
        if let Some(line) = self.log.take_killed(pid, task) {
            apply_killed(oom, &line);
        }
        oom.memsw = oom.limit().is_some_and(is_memsw);
        self.last = Some(Invocation {
            id: oom.id,
            trigger: oom.trigger.process.tid,
            constraint: oom.constraint,
            via: oom.via,
            hit: oom.limit().map(|level| level.cgroup.key),
            logged_cgroup: oom.logged_cgroup.clone(),
            gfp_mask: oom.gfp_mask,
            order: oom.order,
        });
    }
}

fn apply_call(oom: &mut Oom, LoggedCall { invoked, constraint: line }: LoggedCall) {
    let trigger = oom.trigger.process.comm.as_deref();
    if let Some(invoked) = invoked.filter(|line| trigger.is_none_or(|comm| comm == line.task)) {
        (oom.gfp_mask, oom.order) = (Some(invoked.gfp_mask), Some(invoked.order));
    }
    oom.constraint = Some(line.constraint);
    oom.via = Some(OomVia::KernelLog);
    if line.constraint == Constraint::Memcg {
        let named = line.oom_memcg.as_deref();
        let logged = named.and_then(|path| constraint::level_of_path(&oom.levels, path));
        match logged {
            Some(level) => oom.hit = Some(level),
            // A level whose path is known and another is not the one.
            None => {
                let other = oom.limit().is_some_and(|level| level.cgroup.path.is_some());
                oom.hit = oom.hit.filter(|_| !other);
                oom.logged_cgroup = line.oom_memcg;
            }
        }
    } else {
        oom.hit = None;
    }
}

/// The kernel's own report has the last word on the victim's memory: from 7.0 on it sums the
/// counters of all CPUs, of which an eBPF program sees the shared part only
/// (<https://git.kernel.org/torvalds/c/5898aa8f9a0b>).
fn apply_killed(oom: &mut Oom, line: &KilledLine) {
    let read = oom.memory;
    oom.memory = Some(Memory {
        total_vm: line.total_vm,
        anon_rss: line.anon_rss,
        file_rss: line.file_rss,
        shmem_rss: line.shmem_rss,
        pgtables: line.pgtables.or(read.and_then(|memory| memory.pgtables)),
        swap: read.and_then(|memory| memory.swap),
    });
    oom.oom_score_adj = line.oom_score_adj.map(i32::from).or(oom.oom_score_adj);
}

#[cfg(test)]
mod tests;
