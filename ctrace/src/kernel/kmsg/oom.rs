//! What the OOM killer logs (`mm/oom_kill.c`, `mm/memcontrol.c`).
//!
//! Names of tasks and cgroups may hold anything, separators included. The lines are read from both
//! ends, so that only what the kernel itself wrote is taken for a separator wherever that can be
//! told.

use crate::event::Constraint;

#[cfg(test)]
mod tests;

/// A task's name is at most this long (`TASK_COMM_LEN` less its NUL).
const COMM_MAX: usize = 15;

/// `oom-kill:constraint=CONSTRAINT_MEMCG,…`: why and for whom, one for each call of the OOM killer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomConstraintLine {
    /// What was full.
    pub constraint: Constraint,
    /// The cgroup whose limit was hit; `None` where the whole host was out of memory.
    pub oom_memcg: Option<String>,
    /// The victim's cgroup of the memory controller; `None` on kernels without it.
    pub task_memcg: Option<String>,
    /// The victim's name.
    pub task: String,
    /// The victim's thread id in the host's namespace.
    pub pid: u32,
    /// The victim's real user id in the host's namespace.
    pub uid: u32,
}

impl OomConstraintLine {
    /// Reads a line; `None` where it is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (constraint, rest) = text.strip_prefix("oom-kill:constraint=")?.split_once(',')?;
        let (rest, uid) = number_after(rest, ",uid=")?;
        let (rest, pid) = number_after(rest, ",pid=")?;
        // Leftmost, but with no more behind it than a name can hold.
        let separator = ",task=";
        let (at, _) = rest
            .match_indices(separator)
            .find(|(at, _)| rest[at + separator.len()..].chars().count() <= COMM_MAX)?;
        let (rest, task) = (&rest[..at], &rest[at + separator.len()..]);
        let scope = Scope::parse(rest)?;
        Some(Self {
            constraint: match constraint {
                "CONSTRAINT_NONE" => Constraint::Global,
                "CONSTRAINT_CPUSET" => Constraint::Cpuset,
                "CONSTRAINT_MEMORY_POLICY" => Constraint::Mempolicy,
                "CONSTRAINT_MEMCG" => Constraint::Memcg,
                _ => return None,
            },
            oom_memcg: scope.oom_memcg.map(str::to_owned),
            task_memcg: scope.task_memcg.map(str::to_owned),
            task: task.to_owned(),
            pid,
            uid,
        })
    }
}

/// The part between the constraint and the task.
struct Scope<'a> {
    oom_memcg: Option<&'a str>,
    task_memcg: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// `nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/x,task_memcg=/x/y`. A cpuset's name holds
    /// no slash and a path starts with one, so the first `mems_allowed` in front of a path is real.
    fn parse(text: &'a str) -> Option<Self> {
        let separator = ",mems_allowed=";
        text.match_indices(separator).find_map(|(at, _)| {
            let nodes = &text[at + separator.len()..];
            let end = nodes.find(|c: char| !matches!(c, '0'..='9' | '-' | ','));
            // The comma in front of the next key goes with the list of nodes.
            match &nodes[end.unwrap_or(nodes.len())..] {
                "" | "global_oom" => Some(Self { oom_memcg: None, task_memcg: None }),
                rest => rest.strip_prefix("oom_memcg=").map_or_else(
                    || {
                        let path = rest.strip_prefix("global_oom,task_memcg=")?;
                        let task_memcg = path.starts_with('/').then_some(path);
                        task_memcg.map(|path| Self { oom_memcg: None, task_memcg: Some(path) })
                    },
                    |paths| paths.starts_with('/').then(|| Self::split(paths)),
                ),
            }
        })
    }

    /// `/x,task_memcg=/x/y`: the victim is in the cgroup that ran out or below it.
    fn split(paths: &'a str) -> Self {
        let separator = ",task_memcg=";
        let splits = || {
            let places = paths.match_indices(separator);
            places.map(|(at, _)| (&paths[..at], &paths[at + separator.len()..]))
        };
        let is_below = |(above, path): &(&str, &str)| {
            let rest = path.strip_prefix(*above).unwrap_or("?");
            *above == "/" || rest.is_empty() || rest.starts_with('/')
        };
        match splits().find(is_below).or_else(|| splits().next()) {
            Some((oom, task)) => Self { oom_memcg: Some(oom), task_memcg: Some(task) },
            None => Self { oom_memcg: Some(paths), task_memcg: None },
        }
    }
}

/// `Memory cgroup out of memory: Killed process 123 (tail) total-vm:70000kB, …`: one for each
/// victim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KilledLine {
    /// Whether a memory cgroup's limit was hit, not the whole host's memory.
    pub is_memcg: bool,
    /// The victim's thread id in the host's namespace.
    pub pid: u32,
    /// The victim's name.
    pub task: String,
    /// Address space, in bytes.
    pub total_vm: u64,
    /// Resident anonymous memory, in bytes.
    pub anon_rss: u64,
    /// Resident file pages, in bytes.
    pub file_rss: u64,
    /// Resident shared memory, in bytes.
    pub shmem_rss: u64,
    /// The victim's real user id in the host's namespace.
    pub uid: Option<u32>,
    /// Page tables, in bytes.
    pub pgtables: Option<u64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i16>,
}

impl KilledLine {
    /// Reads a line; `None` where it is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (message, rest) = text.split_once(": Killed process ")?;
        // Other lines of the kernel's hold paths of cgroups, which may hold anything.
        let is_memcg = message.starts_with("Memory cgroup out of memory");
        if !is_memcg && !message.starts_with("Out of memory") {
            return None;
        }
        let (pid, rest) = rest.split_once(" (")?;
        let end = rest.rfind(") total-vm:")?;
        let (task, rest) = (&rest[..end], &rest[end + 2..]);
        let value = |key: &str| {
            let mut fields = rest.split([' ', ',']);
            fields.find_map(|field| field.strip_prefix(key)?.strip_prefix(':'))
        };
        let bytes = |key| {
            let kibibytes: u64 = value(key)?.strip_suffix("kB")?.parse().ok()?;
            kibibytes.checked_mul(1024)
        };
        Some(Self {
            is_memcg,
            pid: pid.parse().ok()?,
            task: task.to_owned(),
            total_vm: bytes("total-vm")?,
            anon_rss: bytes("anon-rss")?,
            file_rss: bytes("file-rss")?,
            shmem_rss: bytes("shmem-rss")?,
            uid: value("UID").and_then(|uid| uid.parse().ok()),
            pgtables: bytes("pgtables"),
            oom_score_adj: value("oom_score_adj").and_then(|adj| adj.parse().ok()),
        })
    }
}

/// `tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0`: who asked for
/// memory. Rate-limited, so it can be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokedLine {
    /// The name of the task that asked.
    pub task: String,
    /// The allocation's flags, whose bits differ between kernels.
    pub gfp_mask: u32,
    /// The power of two of pages asked for; -1 where it was asked for through sysrq.
    pub order: i32,
}

impl InvokedLine {
    /// Reads a line; `None` where it is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let separator = " invoked oom-killer: gfp_mask=";
        // More before it than a name can hold: a line with the path of a cgroup.
        let at = text.rfind(separator).filter(|at| text[..*at].chars().count() <= COMM_MAX)?;
        let (mask, rest) = text[at + separator.len()..].split_once('(')?;
        let (_, rest) = rest.split_once(')')?;
        let order = rest.split(", ").find_map(|field| field.strip_prefix("order="))?;
        Some(Self {
            task: text[..at].to_owned(),
            // The kernel prints a mask of zero without its 0x.
            gfp_mask: u32::from_str_radix(mask.strip_prefix("0x").unwrap_or(mask), 16).ok()?,
            order: order.parse().ok()?,
        })
    }
}

/// Splits a trailing `<key><number>` off.
fn number_after<'a>(text: &'a str, key: &str) -> Option<(&'a str, u32)> {
    let at = text.rfind(key)?;
    Some((&text[..at], text[at + key.len()..].trim_end().parse().ok()?))
}
