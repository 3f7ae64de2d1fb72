//! Processes that die of something else are no OOM kills.

use anyhow::Result;
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::docker;
use ctrace_tests::facts::{CgroupVersion, memory_controller};
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, signal};
use ctrace_tests::victim::Plan;
use ctrace_tests::watch::Watch;

use crate::MIB;

#[test]
fn kill_from_outside() {
    case("SIGKILL from another process is no oom_kill", || {
        let (watch, mut log) = (Watch::oom(&[])?, KernelLog::mark()?);
        let cgroup = Cgroup::new("sigkill")?.limit(32 * MIB)?;
        let victim = Plan::new("ct-sigkill").anon(16 << 20).spawn(Some(&cgroup))?;
        let pid = victim.pid();
        signal(pid, Signal::Kill)?;
        victim.killed()?;
        equal("oom_kill in the cgroup", cgroup.counters()?.oom_kill, 0)?;
        silent(watch, &mut log, pid)
    });
}

#[test]
fn kill_by_docker() {
    case("docker kill is no oom_kill", || {
        let engine = docker::shared()?;
        let (watch, mut log) = (Watch::oom(&[])?, KernelLog::mark()?);
        let (container, _gate) = engine.start_gated(&["--memory", "64m"], "/bin/true")?;
        let pid = container.pid()?;
        container.kill()?;
        equal("exit code", container.wait()?, 137)?;
        equal("docker's OOMKilled", container.oom_killed()?, false)?;
        silent(watch, &mut log, pid)
    });
}

#[test]
fn kill_of_a_whole_cgroup() {
    case("cgroup.kill is no oom_kill", || {
        if memory_controller()?.version == CgroupVersion::V1 {
            return Err(cannot("cgroup.kill is of cgroup v2"));
        }
        let (watch, mut log) = (Watch::oom(&[])?, KernelLog::mark()?);
        let cgroup = Cgroup::new("cgroup-kill")?.limit(32 * MIB)?;
        if !cgroup.has("cgroup.kill") {
            return Err(cannot("cgroup.kill came with 5.14"));
        }
        let victim = Plan::new("ct-cgkill").anon(16 << 20).spawn(Some(&cgroup))?;
        let pid = victim.pid();
        cgroup.kill()?;
        victim.killed()?;
        silent(watch, &mut log, pid)
    });
}

/// Events come in the order of the kernel's: once a later kill is seen, an earlier one would be.
fn silent(watch: Watch, log: &mut KernelLog, pid: u32) -> Result<()> {
    let cgroup = Cgroup::new("fence")?.limit(8 * MIB)?;
    let fence = Plan::new("ct-fence").spawn(Some(&cgroup))?;
    let fence_pid = fence.pid();
    fence.eat_until_killed()?;
    watch.oom_kill(fence_pid)?;
    let ended = watch.stop()?;
    let told = ended.events.iter().any(|event| event.is_oom_kill_of(pid));
    let logged = log.kills()?.iter().any(|killed| killed.pid == pid);
    equal("an oom_kill in the kernel log", logged, false)?;
    equal("an oom_kill event", told, false)
}
