//! An OOM kill.

use super::{
    Detail, Evidence, Severity, Subject,
    field::{Field, Type, Value, object},
    subject::{Cgroup, CgroupKey, subject_value},
    text::{bytes, path},
};

/// Why the kernel had to kill: `enum oom_constraint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// A memory cgroup reached its limit.
    Memcg,
    /// The host is out of memory.
    Global,
    /// The memory nodes of a cpuset are full.
    Cpuset,
    /// The memory nodes of a mempolicy are full.
    Mempolicy,
}

impl Constraint {
    pub const fn name(self) -> &'static str {
        match self {
            Constraint::Memcg => "memcg",
            Constraint::Global => "global",
            Constraint::Cpuset => "cpuset",
            Constraint::Mempolicy => "mempolicy",
        }
    }
}

/// How constraint and limiting cgroup are known, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomVia {
    /// Read from the kernel's `oom_control` by a hook on `out_of_memory`.
    Hook,
    /// From the line that the kernel logged for this kill.
    KernelLog,
    /// Who called the OOM killer by the kernel stack, the level by lock and counters.
    Stack,
    /// From lock and counters of the memory cgroups alone.
    Counters,
}

impl OomVia {
    pub const fn name(self) -> &'static str {
        match self {
            OomVia::Hook => "hook",
            OomVia::KernelLog => "kernel_log",
            OomVia::Stack => "stack",
            OomVia::Counters => "counters",
        }
    }
}

/// One level of the victim's memory-cgroup chain, at the kill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    pub cgroup: Cgroup,
    /// `memory.max` or `memory.limit_in_bytes`; absent: no limit.
    pub limit_bytes: Option<u64>,
    pub usage_bytes: u64,
    /// v1: limit of memory and swap together, absent: none. v2: `memory.swap.max`.
    pub swap_limit_bytes: Option<u64>,
    /// v1: memory and swap together. v2: swap.
    pub swap_usage_bytes: Option<u64>,
    /// Times the limit was hit.
    pub failcnt: Option<u64>,
    /// `memory.oom.group`
    pub oom_group: bool,
    /// Counters of `memory.events` (v2) or `memory.oom_control` (v1), this kill included.
    pub events: Vec<(&'static str, u64)>,
}

/// Memory of the victim at the kill; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total_vm: u64,
    pub anon_rss: u64,
    pub file_rss: u64,
    pub shmem_rss: u64,
    pub swap: Option<u64>,
    pub pgtables: Option<u64>,
}

/// One victim of the kernel's OOM killer. The victim is the event's subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oom {
    /// Microseconds since boot of the first victim: the same for all victims of one invocation.
    pub id: u64,
    pub constraint: Option<Constraint>,
    pub via: Option<OomVia>,
    /// The task whose allocation called the OOM killer.
    pub trigger: Subject,
    /// Absent where the kernel gave a pid alone.
    pub memory: Option<Memory>,
    pub oom_score_adj: Option<i32>,
    /// From the victim's memory cgroup to the outermost.
    pub levels: Vec<Level>,
    /// Whether levels above the last one were not read.
    pub levels_truncated: bool,
    /// Which of `levels` hit its limit.
    pub hit: Option<usize>,
    /// The path the kernel's log names, where no level has it.
    pub logged_cgroup: Option<String>,
    /// Whether the limit on memory and swap together was hit (v1).
    pub memsw: bool,
    pub gfp_mask: Option<u32>,
    pub order: Option<i32>,
}

impl Oom {
    /// The level whose limit was hit.
    pub fn limit(&self) -> Option<&Level> {
        self.levels.get(self.hit?)
    }

    fn limit_bytes(&self) -> Option<u64> {
        let level = self.limit()?;
        if self.memsw { level.swap_limit_bytes } else { level.limit_bytes }
    }

    fn usage_bytes(&self) -> Option<u64> {
        let level = self.limit()?;
        if self.memsw { level.swap_usage_bytes } else { Some(level.usage_bytes) }
    }

    /// The file that holds the limit that was hit.
    fn limit_file(&self) -> Option<&'static str> {
        Some(match (self.limit()?.cgroup.key.hierarchy, self.memsw) {
            (0, _) => "memory.max",
            (_, false) => "memory.limit_in_bytes",
            (_, true) => "memory.memsw.limit_in_bytes",
        })
    }

    pub fn oom_cgroup(&self) -> Option<&str> {
        let level = self.limit().and_then(|level| level.cgroup.path.as_deref());
        level.or(self.logged_cgroup.as_deref())
    }

    /// The counters after the kill: on v2 those of the limiting cgroup, which includes all below
    /// it; on v1 the victim's own, where the kernel counts kills, with the limit's `failcnt`.
    fn memory_events(&self) -> Value<'_> {
        let Some(own) = self.levels.first() else { return Value::Null };
        let limit = self.limit().unwrap_or(own);
        let counted = if own.cgroup.key.hierarchy == 0 { limit } else { own };
        let mut events: Vec<_> =
            counted.events.iter().map(|(name, count)| ((*name).into(), (*count).into())).collect();
        if let Some(failcnt) = limit.failcnt {
            events.push(("failcnt".into(), failcnt.into()));
        }
        Value::Object(events)
    }

    /// Whose limit was hit, for people.
    pub fn why(&self) -> String {
        match (self.constraint, self.limit_bytes(), self.oom_cgroup()) {
            (Some(Constraint::Memcg), Some(limit), Some(cgroup)) => {
                format!("limit {} of {} hit", bytes(limit), path(cgroup))
            }
            (Some(Constraint::Memcg), None, Some(cgroup)) => {
                format!("limit of {} hit", path(cgroup))
            }
            (Some(Constraint::Memcg), ..) => "a memory cgroup's limit hit".to_owned(),
            (Some(Constraint::Global), ..) => "the host is out of memory".to_owned(),
            (Some(Constraint::Cpuset), ..) => "the cpuset's memory nodes are full".to_owned(),
            (Some(Constraint::Mempolicy), ..) => "the mempolicy's memory nodes are full".to_owned(),
            (None, ..) => "constraint unknown".to_owned(),
        }
    }

    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "id",
            ty: Type::Number,
            doc: "One invocation of the OOM killer: all victims of a group kill have the same. \
                  Microseconds since boot of its first victim",
            get: |oom| oom.id.into(),
        },
        Field {
            name: "constraint",
            ty: Type::Text,
            doc: "memcg (a memory cgroup's limit), global (the host), cpuset or mempolicy (memory \
                  nodes); null: unknown",
            get: |oom| oom.constraint.map(Constraint::name).into(),
        },
        Field {
            name: "via",
            ty: Type::Text,
            doc: "How constraint and oom_cgroup are known: hook (read in the kernel), kernel_log, \
                  stack (the caller by the kernel stack, the level by lock and counters) or \
                  counters",
            get: |oom| oom.via.map(OomVia::name).into(),
        },
        Field {
            name: "oom_cgroup",
            ty: Type::Text,
            doc: "Path of the memory cgroup whose limit was hit; null where none was",
            get: |oom| oom.oom_cgroup().into(),
        },
        Field {
            name: "limit_file",
            ty: Type::Text,
            doc: "The cgroup file that holds the limit that was hit",
            get: |oom| oom.limit_file().into(),
        },
        Field {
            name: "limit_bytes",
            ty: Type::Bytes,
            doc: "The limit that was hit",
            get: |oom| oom.limit_bytes().into(),
        },
        Field {
            name: "usage_bytes",
            ty: Type::Bytes,
            doc: "What was charged to oom_cgroup at the kill",
            get: |oom| oom.usage_bytes().into(),
        },
        Field {
            name: "total_vm_bytes",
            ty: Type::Bytes,
            doc: "Address space of the victim",
            get: |oom| oom.memory.map(|memory| memory.total_vm).into(),
        },
        Field {
            name: "anon_rss_bytes",
            ty: Type::Bytes,
            doc: "Resident anonymous memory of the victim. Like the other figures of its memory: as \
                  the kernel logged it, else as its counters were at the kill",
            get: |oom| oom.memory.map(|memory| memory.anon_rss).into(),
        },
        Field {
            name: "file_rss_bytes",
            ty: Type::Bytes,
            doc: "Resident file mappings of the victim",
            get: |oom| oom.memory.map(|memory| memory.file_rss).into(),
        },
        Field {
            name: "shmem_rss_bytes",
            ty: Type::Bytes,
            doc: "Resident shared memory of the victim",
            get: |oom| oom.memory.map(|memory| memory.shmem_rss).into(),
        },
        Field {
            name: "swap_bytes",
            ty: Type::Bytes,
            doc: "Memory of the victim that is swapped out",
            get: |oom| oom.memory.and_then(|memory| memory.swap).into(),
        },
        Field {
            name: "pgtables_bytes",
            ty: Type::Bytes,
            doc: "Page tables of the victim",
            get: |oom| oom.memory.and_then(|memory| memory.pgtables).into(),
        },
        Field {
            name: "oom_score_adj",
            ty: Type::Signed,
            doc: "The victim's /proc/PID/oom_score_adj",
            get: |oom| oom.oom_score_adj.into(),
        },
        Field {
            name: "gfp_mask",
            ty: Type::Number,
            doc: "Flags of the allocation that failed; null: neither hooked nor logged",
            get: |oom| oom.gfp_mask.into(),
        },
        Field {
            name: "order",
            ty: Type::Signed,
            doc: "Its size, 2^order pages; -1: asked for through sysrq; null: neither hooked nor \
                  logged",
            get: |oom| oom.order.into(),
        },
        Field {
            name: "trigger",
            ty: Type::Object,
            doc: "The task whose allocation called the OOM killer, with its own container",
            get: |oom| subject_value(&oom.trigger),
        },
        Field {
            name: "memory_events",
            ty: Type::Object,
            doc: "Counters after the kill. v2: memory.events of oom_cgroup. v1: oom_kill of the \
                  victim's memory.oom_control and oom_cgroup's memory.failcnt",
            get: |oom| oom.memory_events(),
        },
        Field {
            name: "levels",
            ty: Type::Objects,
            doc: "The victim's memory cgroup and those around it, innermost first, at the kill",
            get: |oom| {
                Value::List(oom.levels.iter().map(|level| object(Level::FIELDS, level)).collect())
            },
        },
    ];
}

impl Level {
    pub const FIELDS: &'static [Field<Self>] = &[
        Field {
            name: "id",
            ty: Type::Number,
            doc: "kernfs id of the cgroup",
            get: |level| level.cgroup.key.id.into(),
        },
        Field {
            name: "path",
            ty: Type::Text,
            doc: "Its path from the root of the memory controller's hierarchy",
            get: |level| level.cgroup.path.as_deref().into(),
        },
        Field {
            name: "limit_bytes",
            ty: Type::Bytes,
            doc: "Its limit; null: none",
            get: |level| level.limit_bytes.into(),
        },
        Field {
            name: "usage_bytes",
            ty: Type::Bytes,
            doc: "What is charged to it",
            get: |level| level.usage_bytes.into(),
        },
        Field {
            name: "swap_limit_bytes",
            ty: Type::Bytes,
            doc: "v1: limit of memory and swap together. v2: memory.swap.max. null: none",
            get: |level| level.swap_limit_bytes.into(),
        },
        Field {
            name: "swap_usage_bytes",
            ty: Type::Bytes,
            doc: "v1: memory and swap together. v2: swap",
            get: |level| level.swap_usage_bytes.into(),
        },
    ];
}

impl Detail for Oom {
    fn type_name(&self) -> &'static str {
        "oom_kill"
    }

    fn key(&self) -> &'static str {
        "oom"
    }

    fn value(&self) -> Value<'_> {
        object(Self::FIELDS, self)
    }

    fn severity(&self) -> Severity {
        Severity::Gone
    }

    fn headline(&self, subject: Option<&Subject>) -> String {
        let victim = subject.map(|subject| subject.process.label()).unwrap_or_default();
        let why = self.why();
        let mut line = format!("{victim} killed: {why}");
        if let Some(memory) = self.memory {
            line += &format!(", anon-rss {}", bytes(memory.anon_rss));
        }
        // Who asked for the memory is only worth a word where it was another process.
        let trigger = &self.trigger.process;
        if trigger
            .pid
            .is_some_and(|pid| subject.is_some_and(|victim| victim.process.pid != Some(pid)))
        {
            line += &format!(", triggered by {} of {}", trigger.label(), self.trigger.label());
        }
        line
    }

    fn evidence(&self, subject: Option<&Subject>) -> Vec<Evidence> {
        let mut lines = Vec::new();
        let mut line = |label, text: String| lines.push(Evidence { label, text });
        if let Some(subject) = subject {
            line("victim", process_line(subject));
        }
        if let Some(container) = subject.and_then(Subject::container) {
            line("container", container.describe());
        }
        let itself = subject.is_some_and(|victim| victim.process == self.trigger.process);
        line(
            "trigger",
            match itself {
                true => "the victim itself".to_owned(),
                false => format!("{}, {}", process_line(&self.trigger), self.trigger.label()),
            },
        );
        let via = self.via.map_or("", OomVia::name);
        line(
            "constraint",
            match self.constraint {
                Some(constraint) => format!("{} (via {via})", constraint.name()),
                None => "unknown".to_owned(),
            },
        );
        for (index, level) in self.levels.iter().enumerate() {
            let label = if index == 0 { "cgroup" } else { "" };
            let mark = if self.hit == Some(index) { "  <- limit hit" } else { "" };
            line(label, format!("{}{mark}", level_line(level, self.memsw)));
        }
        if self.levels_truncated {
            line("", "levels above were not read".to_owned());
        }
        match self.memory {
            Some(memory) => {
                line(
                    "memory",
                    format!(
                        "anon-rss {}, file-rss {}, shmem-rss {}, swap {}, page tables {}, \
                         total-vm {}",
                        bytes(memory.anon_rss),
                        bytes(memory.file_rss),
                        bytes(memory.shmem_rss),
                        known(memory.swap),
                        known(memory.pgtables),
                        bytes(memory.total_vm)
                    ),
                );
            }
            None => line("memory", "unknown: the kernel gave the victim's pid alone".to_owned()),
        }
        if let Value::Object(events) = self.memory_events() {
            let counts = events.iter().filter_map(|(name, count)| match count {
                Value::Number(count) => Some(format!("{name} {count}")),
                _ => None,
            });
            line("events", counts.collect::<Vec<_>>().join(", "));
        }
        let adj = self.oom_score_adj.map_or("unknown".to_owned(), |adj| adj.to_string());
        let allocation = self.order.zip(self.gfp_mask);
        let allocation = allocation
            .map(|(order, mask)| format!(", order {order}, gfp_mask {mask:#x}"))
            .unwrap_or_default();
        line("oom", format!("id {}, oom_score_adj {adj}{allocation}", self.id));
        lines
    }

    fn subjects_mut(&mut self) -> Vec<&mut Subject> {
        vec![&mut self.trigger]
    }

    fn cgroups_mut(&mut self) -> Vec<&mut Cgroup> {
        self.levels.iter_mut().map(|level| &mut level.cgroup).collect()
    }
}

fn known(count: Option<u64>) -> String {
    count.map_or("unknown".to_owned(), bytes)
}

fn process_line(subject: &Subject) -> String {
    let process = &subject.process;
    let mut line = process.label();
    for (name, number) in
        [("ppid", process.ppid), ("uid", process.uid), ("container pid", process.container_pid)]
    {
        let inside = name != "container pid" || subject.container().is_some();
        if let (Some(number), true) = (number, inside) {
            line += &format!(", {name} {number}");
        }
    }
    line
}

fn level_line(level: &Level, memsw: bool) -> String {
    let name = match &level.cgroup.path {
        Some(name) => path(name),
        None => format!("cgroup {} (gone)", level.cgroup.key.id),
    };
    let limit =
        level.limit_bytes.map_or(", no limit".to_owned(), |limit| format!(" of {}", bytes(limit)));
    let mut line = format!("{name}: {}{limit}", bytes(level.usage_bytes));
    if memsw && let (Some(usage), Some(limit)) = (level.swap_usage_bytes, level.swap_limit_bytes) {
        line += &format!(", memory+swap {} of {}", bytes(usage), bytes(limit));
    }
    if level.oom_group {
        line += ", memory.oom.group";
    }
    line
}

impl From<CgroupKey> for Cgroup {
    fn from(key: CgroupKey) -> Self {
        Self { key, path: None }
    }
}
