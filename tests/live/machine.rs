//! The machine's own limits: a global OOM, a cpuset's and a memory policy's. Only in a virtual
//! machine that is ours alone.

use std::fs;

use anyhow::{Context, Result};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{CgroupVersion, in_vm, memory_controller, numa_nodes};
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oom_check::{Identity, both, check_victim, equal};
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::Watch;

#[test]
fn global() {
    case("global OOM: constraint global, no limit's cgroup", || {
        own_machine()?;
        let event = exhaust(Plan::new("ct-global"), None, "CONSTRAINT_NONE")?;
        equal("oom.constraint", event.str("/oom/constraint")?, "global")
    });
}

#[test]
fn memory_policy() {
    case("a memory policy's OOM: constraint mempolicy", || {
        own_machine()?;
        let node = second_node()?;
        let plan = Plan::new("ct-mempolicy").numa_node(node);
        let event = exhaust(plan, None, "CONSTRAINT_MEMORY_POLICY")?;
        equal("oom.constraint", event.str("/oom/constraint")?, "mempolicy")
    });
}

#[test]
fn cpuset() {
    case("a cpuset's OOM: constraint cpuset", || {
        own_machine()?;
        let node = second_node()?;
        let controller = memory_controller()?;
        if controller.version == CgroupVersion::V1 {
            return Err(cannot("the test makes cpusets of cgroup v2"));
        }
        fs::write(controller.mount.join("cgroup.subtree_control"), "+cpuset")?;
        let cgroup = Cgroup::new("cpuset")?;
        cgroup.set("cpuset.mems", &node.to_string())?;
        let event = exhaust(Plan::new("ct-cpuset"), Some(&cgroup), "CONSTRAINT_CPUSET")?;
        equal("oom.constraint", event.str("/oom/constraint")?, "cpuset")
    });
}

/// Has a victim, the first choice of the OOM killer, take all that its constraint allows.
fn exhaust(plan: Plan, cgroup: Option<&Cgroup>, constraint: &str) -> Result<Event> {
    let mut log = KernelLog::mark()?;
    let watch = Watch::oom(&[])?;
    let victim = plan.oom_score_adj(1000).spawn(cgroup)?;
    let identity = Identity::of(victim.pid())?;
    victim.eat_until_killed()?;
    let (event, killed) = both(&watch, &mut log, identity.pid)?;
    let line = log.constraint(identity.pid).context("no constraint line in the kernel log")?;
    equal("constraint (kernel log)", line.constraint.as_str(), constraint)?;
    identity.check(&event)?;
    if event.u64("/oom/trigger/pid")? == u64::from(identity.pid) {
        check_victim(&event, &killed)?;
    } else {
        // It ran on while the trigger looked at it: only what stands still is comparable.
        equal("process.comm", event.str("/process/comm")?, killed.comm.as_str())?;
        equal("oom.oom_score_adj", event.i64("/oom/oom_score_adj")?, killed.oom_score_adj)?;
    }
    let none = None::<&serde_json::Value>;
    equal("oom.oom_cgroup", event.get("/oom/oom_cgroup"), none)?;
    watch.stop()?;
    Ok(event)
}

fn own_machine() -> Result<()> {
    if in_vm() { Ok(()) } else { Err(cannot("takes all memory: only with CTRACE_TEST_VM=1")) }
}

fn second_node() -> Result<u32> {
    let nodes = numa_nodes()?;
    nodes.get(1).copied().ok_or_else(|| cannot(format!("one NUMA node: {nodes:?}")))
}
