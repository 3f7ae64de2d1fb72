//! Why the kernel had to kill, and which level's limit was hit. Pure.
//!
//! Where no hook reads `oom_control`, three things that the kernel leaves in place tell it:
//!
//! - the kernel stack at `mark_victim` names the caller of `out_of_memory`: a memory cgroup's charge
//!   or the page allocator;
//! - during a memory cgroup's OOM the kernel holds `mem_cgroup.oom_lock` of the limiting level and
//!   of all levels below it
//!   (<https://github.com/torvalds/linux/blob/v6.12/mm/memcontrol-v1.c#L1285-L1322>);
//! - the charge that failed left the limiting level's counter at its limit.

use crate::event::{Constraint, Level};

/// Symbols that tell the caller of the OOM killer; kernel releases name and inline them differently.
pub const CALLERS: &[&str] = &[
    "out_of_memory",
    "oom_kill_memcg_member",
    "mem_cgroup_out_of_memory",
    "mem_cgroup_oom",
    "mem_cgroup_oom_synchronize",
    "memory_max_write",
    "try_charge",
    "try_charge_memcg",
    "pagefault_out_of_memory",
    "moom_callback",
];
/// The page allocator's functions all begin so.
pub const CALLER_PREFIXES: &[&str] = &["__alloc_"];

/// What a kernel stack tells of an OOM kill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackFacts {
    /// Whether a memory cgroup's charge called the OOM killer; absent: the stack does not tell.
    pub memcg: Option<bool>,
    /// Whether this is a further victim of a group kill.
    pub group_member: bool,
}

/// Reads a stack, innermost frame first; frames of other functions have no name.
pub fn read_stack<'a>(frames: impl Iterator<Item = Option<&'a str>>) -> StackFacts {
    let mut facts = StackFacts::default();
    let mut inside = false;
    for frame in frames {
        match frame {
            Some("oom_kill_memcg_member") => facts.group_member = true,
            Some("out_of_memory") => inside = true,
            Some(caller) if inside => {
                let page_allocator =
                    CALLER_PREFIXES.iter().any(|prefix| caller.starts_with(prefix))
                        || matches!(caller, "pagefault_out_of_memory" | "moom_callback");
                facts.memcg = Some(!page_allocator);
                return facts;
            }
            _ => {}
        }
    }
    facts
}

/// The memory nodes that an allocation was bound to, against those that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Nodes with memory, a bit each; 0: unknown.
    pub with_memory: u64,
    /// The trigger's `mems_allowed`.
    pub mems_allowed: Option<u64>,
    /// The nodes of the trigger's mempolicy, where it binds.
    pub bound: Option<u64>,
}

impl NodeFacts {
    /// The constraint of an allocation that no memory cgroup stopped.
    fn constraint(self) -> Constraint {
        let narrower = |nodes: Option<u64>| nodes.is_some_and(|n| self.with_memory & !n != 0);
        if narrower(self.bound) {
            Constraint::Mempolicy
        } else if narrower(self.mems_allowed) {
            Constraint::Cpuset
        } else {
            Constraint::Global
        }
    }
}

/// One level as the derivation needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelFacts {
    /// Bytes free below the tightest of the level's limits; absent: no limit.
    pub headroom: Option<u64>,
    /// The kernel holds its OOM lock.
    pub locked: bool,
    /// The trigger's memory cgroup is this level or below it.
    pub of_trigger: bool,
}

/// How far below its limit the limiting level can be at the kill: the charge that failed may have
/// been of several pages, and other tasks free memory meanwhile.
const SLACK_BYTES: u64 = 256 * 1024;

/// The answer: the constraint, absent where it cannot be told, and the level that was hit.
pub fn derive(
    levels: &[LevelFacts],
    stack_memcg: Option<bool>,
    nodes: NodeFacts,
    lock_known: bool,
) -> (Option<Constraint>, Option<usize>) {
    match stack_memcg {
        Some(true) => (Some(Constraint::Memcg), limiting_level(levels)),
        Some(false) => (Some(nodes.constraint()), None),
        None => {
            let full = limiting_level(levels);
            match full {
                None => (Some(nodes.constraint()), None),
                Some(level) if levels[level].locked => (Some(Constraint::Memcg), full),
                // Full of page cache is a container's normal state: without the lock that says
                // nothing of this kill.
                Some(_) if lock_known => (Some(nodes.constraint()), None),
                Some(_) => (None, None),
            }
        }
    }
}

/// The level whose limit stopped the charge: the outermost locked one that is at its limit, else
/// the innermost at its limit, first among the levels that trigger and victim share.
fn limiting_level(levels: &[LevelFacts]) -> Option<usize> {
    let full = |level: &LevelFacts| level.headroom.is_some_and(|bytes| bytes <= SLACK_BYTES);
    let locked = levels.iter().rposition(|level| level.locked && full(level));
    let shared = || levels.iter().position(|level| level.of_trigger && full(level));
    locked.or_else(shared).or_else(|| levels.iter().position(full))
}

/// The level that a path from the kernel's log names.
pub fn level_of_path(levels: &[Level], path: &str) -> Option<usize> {
    levels.iter().position(|level| level.cgroup.path.as_deref() == Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: LevelFacts = LevelFacts { headroom: None, locked: false, of_trigger: true };
    const FULL: LevelFacts = LevelFacts { headroom: Some(0), locked: false, of_trigger: true };
    const LOCKED: LevelFacts = LevelFacts { locked: true, ..FULL };

    fn stack(frames: &[&'static str]) -> StackFacts {
        read_stack(frames.iter().map(|name| (!name.is_empty()).then_some(*name)))
    }

    #[test]
    fn the_caller_of_out_of_memory_decides() {
        let memcg = stack(&["", "out_of_memory", "mem_cgroup_out_of_memory", "try_charge_memcg"]);
        assert_eq!(memcg, StackFacts { memcg: Some(true), group_member: false });
        let inlined = stack(&["", "out_of_memory", "", "try_charge_memcg", "", "__alloc_pages"]);
        assert_eq!(inlined.memcg, Some(true));
        let global = stack(&["out_of_memory", "__alloc_pages_slowpath", "__alloc_pages"]);
        assert_eq!(global.memcg, Some(false));
        let sysrq = stack(&["out_of_memory", "moom_callback"]);
        assert_eq!(sysrq.memcg, Some(false));
        let member = stack(&["oom_kill_memcg_member", "", "out_of_memory", "try_charge"]);
        assert_eq!(member, StackFacts { memcg: Some(true), group_member: true });
        assert_eq!(stack(&["", "__alloc_pages"]), StackFacts::default());
        assert_eq!(stack(&["out_of_memory"]), StackFacts::default());
    }

    #[test]
    fn the_outermost_locked_level_is_the_limit() {
        let nodes = NodeFacts::default();
        let hit = |levels: &[LevelFacts]| derive(levels, Some(true), nodes, true).1;
        assert_eq!(hit(&[LevelFacts { headroom: None, ..LOCKED }, LOCKED, FREE]), Some(1));
        assert_eq!(hit(&[LOCKED, LOCKED, FREE]), Some(1));
        // Kernels without the lock: the innermost at its limit.
        assert_eq!(hit(&[FREE, FULL, FULL]), Some(1));
        // A full level that the trigger is not in is not what stopped it.
        assert_eq!(hit(&[LevelFacts { of_trigger: false, ..FULL }, FULL]), Some(1));
        // memory.max written from outside: the trigger is in none of the levels.
        assert_eq!(hit(&[LevelFacts { of_trigger: false, ..FULL }, FREE]), Some(0));
        assert_eq!(hit(&[FREE, FREE]), None);
    }

    #[test]
    fn without_a_stack_a_full_cgroup_alone_says_nothing() {
        let nodes = NodeFacts::default();
        assert_eq!(derive(&[FULL], None, nodes, true).0, Some(Constraint::Global));
        assert_eq!(derive(&[FULL], None, nodes, false).0, None);
        assert_eq!(derive(&[LOCKED], None, nodes, true), (Some(Constraint::Memcg), Some(0)));
        assert_eq!(derive(&[FREE], None, nodes, true).0, Some(Constraint::Global));
    }

    #[test]
    fn nodes_narrow_a_global_kill() {
        let nodes = NodeFacts { with_memory: 0b11, mems_allowed: Some(0b01), bound: None };
        assert_eq!(derive(&[], Some(false), nodes, true).0, Some(Constraint::Cpuset));
        let bound = NodeFacts { bound: Some(0b10), ..nodes };
        assert_eq!(derive(&[], Some(false), bound, true).0, Some(Constraint::Mempolicy));
        let all = NodeFacts { mems_allowed: Some(0xff), ..nodes };
        assert_eq!(derive(&[], Some(false), all, true).0, Some(Constraint::Global));
    }
}
