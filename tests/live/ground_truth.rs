//! The sources that ctrace is held against agree with each other. No ctrace here.

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::engine::{Engine, is_cgroup_of};
use ctrace_tests::facts::patience;
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oci::{self, RUNTIMES};
use ctrace_tests::oom_check::{Identity, counters_of, equal};
use ctrace_tests::victim::Plan;
use ctrace_tests::{docker, podman};

use crate::MIB;

#[test]
fn the_kernel_log_knows_a_victim_by_its_parts() {
    case("ground truth: a victim's figures in the kernel log are what it took", || {
        let mut log = KernelLog::mark()?;
        let cgroup = Cgroup::new("truth")?.limit(32 * MIB)?;
        let victim = Plan::new("ct parts) x")
            .shmem(3 << 20)
            .file("/bin/busybox")?
            .uid(1234)
            .oom_score_adj(7)
            .spawn(Some(&cgroup))?;
        let identity = Identity::of(victim.pid())?;
        equal("cgroup of the victim", identity.cgroup.as_str(), cgroup.path_text().as_str())?;
        equal("id of the cgroup", identity.cgroup_id, cgroup.id()?)?;
        victim.eat_until_killed()?;
        let killed = log.killed(identity.pid, patience(10))?;
        println!("  {killed:?}");
        equal("comm", killed.comm.as_str(), "ct parts) x")?;
        equal("uid", killed.uid, 1234)?;
        equal("oom_score_adj", killed.oom_score_adj, 7)?;
        ensure!(killed.shmem_rss_kib >= 3 << 10, "shared memory of 3 MiB is missing");
        ensure!(killed.file_rss_kib >= 1 << 10, "a mapped file of 2 MB is missing");
        ensure!(killed.anon_rss_kib >= 20 << 10, "what it ate is missing");
        equal("oom_kill in the cgroup", cgroup.counters()?.oom_kill, 1)?;
        let line = log.constraint(identity.pid);
        let logged = line.and_then(|line| line.oom_memcg.as_deref());
        println!("  oom_memcg: {logged:?}");
        ensure!(logged.is_none_or(|path| path == identity.cgroup), "another oom_memcg");
        Ok(())
    });
}

#[test]
fn engines_see_their_containers_killed() {
    case("ground truth: docker and the kernel log agree", || engine(docker::shared()?));
    case("ground truth: podman and the kernel log agree", || engine(podman::shared()?));
}

fn engine(engine: &Engine) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let (container, mut gate) = engine.start_gated(&["--memory", "64m"], "/bin/tail /dev/zero")?;
    let identity = Identity::of(container.pid()?)?;
    println!("  {identity:?}");
    ensure!(is_cgroup_of(&identity.cgroup, &container.id), "not the container's cgroup");
    equal("its pid inside", identity.container_pid, 1)?;
    gate.open()?;
    let killed = log.killed(identity.pid, patience(30))?;
    println!("  {killed:?}");
    equal("comm", killed.comm.as_str(), "tail")?;
    equal("exit code", container.wait()?, 137)?;
    println!("  the engine's own OOMKilled: {}", container.oom_killed()?);
    Ok(())
}

#[test]
fn runtimes_without_an_engine() {
    for runtime in RUNTIMES {
        case(&format!("ground truth: {runtime} and the kernel log agree"), || {
            let mut log = KernelLog::mark()?;
            let (container, mut gate) =
                oci::Container::start_gated(runtime, 32 * MIB, "/bin/tail /dev/zero")?;
            let identity = Identity::of(container.pid)?;
            equal("cgroup", identity.cgroup.as_str(), format!("/{}", container.id).as_str())?;
            gate.open()?;
            let killed = log.killed(identity.pid, patience(30))?;
            equal("comm", killed.comm.as_str(), "tail")?;
            container.wait()?;
            equal("oom_kill in the cgroup", counters_of(&identity)?.oom_kill, 1)
        });
    }
}
