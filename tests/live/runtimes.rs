//! OOM kills in containers of runc and crun without an engine.

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::event::Event;
use ctrace_tests::kernel_log::KernelLog;
use ctrace_tests::oci::Container;
use ctrace_tests::oom_check::{Identity, Limit, both, check_counters, check_limit, check_victim};
use ctrace_tests::oom_check::{counters_of, equal};
use ctrace_tests::watch::Watch;

use crate::MIB;

#[test]
fn runc_container_older_than_ctrace() {
    case("runc: the container runs before ctrace", || gated("runc", false));
}

#[test]
fn runc_container_younger_than_ctrace() {
    case("runc: ctrace runs before the container", || gated("runc", true));
}

#[test]
fn runc_container_of_an_instant() {
    case("runc: a container that lives under a second", || instant("runc"));
}

#[test]
fn crun_container_older_than_ctrace() {
    case("crun: the container runs before ctrace", || gated("crun", false));
}

#[test]
fn crun_container_younger_than_ctrace() {
    case("crun: ctrace runs before the container", || gated("crun", true));
}

#[test]
fn crun_container_of_an_instant() {
    case("crun: a container that lives under a second", || instant("crun"));
}

fn gated(runtime: &str, ctrace_first: bool) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let early = ctrace_first.then(|| Watch::oom(&[])).transpose()?;
    let (container, mut gate) = Container::start_gated(runtime, 32 * MIB, "/bin/tail /dev/zero")?;
    let watch = early.map_or_else(|| Watch::oom(&[]), Ok)?;
    let identity = Identity::of(container.pid)?;
    gate.open()?;
    let (event, killed) = both(&watch, &mut log, identity.pid)?;
    container.wait()?;
    equal("process.comm", event.str("/process/comm")?, "tail")?;
    check_victim(&event, &killed)?;
    identity.check(&event)?;
    check_limit(&event, &log, Limit { bytes: 32 * MIB, path: &identity.cgroup })?;
    // Without an engine the cgroup stays until the container is deleted.
    check_counters(&event, counters_of(&identity)?)?;
    check_container(&event, runtime, &container)?;
    watch.stop().map(drop)
}

fn instant(runtime: &str) -> Result<()> {
    let mut log = KernelLog::mark()?;
    let watch = Watch::oom(&[])?;
    let container = Container::start(runtime, 16 * MIB, &["/bin/tail", "/dev/zero"], None)?;
    let pid = container.pid;
    container.wait()?;
    let id = container.id.clone();
    drop(container);
    let (event, killed) = both(&watch, &mut log, pid)?;
    check_victim(&event, &killed)?;
    equal("container.id", event.str("/container/id")?, id.as_str())?;
    equal("container.runtime", event.str("/container/runtime")?, runtime)?;
    watch.stop().map(drop)
}

fn check_container(event: &Event, runtime: &str, container: &Container) -> Result<()> {
    equal("container.id", event.str("/container/id")?, container.id.as_str())?;
    equal("container.runtime", event.str("/container/runtime")?, runtime)?;
    ensure!(!event.str("/container/via")?.is_empty(), "container.via is empty");
    Ok(())
}
