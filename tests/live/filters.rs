//! Which containers are watched.

use anyhow::{Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::finish;
use ctrace_tests::docker;
use ctrace_tests::engine::{Container, Engine};
use ctrace_tests::facts::patience;
use ctrace_tests::gate::Gate;
use ctrace_tests::image::Image;
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::{Watch, no_panic, watch_oom};

const TAIL: &str = "/bin/tail /dev/zero";
const LIMIT: [&str; 2] = ["--memory", "32m"];

#[test]
fn by_name() {
    case("--container NAME shows that container only", || {
        only(docker::shared()?, |container| container.name.clone())
    });
}

#[test]
fn by_id_prefix() {
    case("--container ID-PREFIX shows that container only", || {
        only(docker::shared()?, |container| container.id[..12].to_owned())
    });
}

/// Kills in another container first: were it shown, it would be shown before.
fn only(engine: &Engine, filter: impl Fn(&Container) -> String) -> Result<()> {
    let (wanted, mut wanted_gate) = engine.start_gated(&LIMIT, TAIL)?;
    let (other, mut other_gate) = engine.start_gated(&LIMIT, TAIL)?;
    let (wanted_pid, other_pid) = (wanted.pid()?, other.pid()?);
    let filter = filter(&wanted);
    println!("  --container {filter}");
    let filtered = Watch::oom(&["--container", &filter])?;
    let all = Watch::oom(&[])?;
    other_gate.open()?;
    equal("exit code of the other", other.wait()?, 137)?;
    all.oom_kill(other_pid)?;
    wanted_gate.open()?;
    let event = filtered.oom_kill(wanted_pid)?;
    equal("container.id", event.str("/container/id")?, wanted.id.as_str())?;
    all.oom_kill(wanted_pid)?;
    let ended = filtered.stop()?;
    let strangers: Vec<_> = ended
        .events
        .iter()
        .filter(|event| event.is("oom_kill") && !event.is_oom_kill_of(wanted_pid))
        .collect();
    ensure!(strangers.is_empty(), "events of other containers: {strangers:?}");
    all.stop().map(drop)
}

#[test]
fn unknown_container() {
    case("--container with a name that nothing has: exit 2", || {
        let name = unique("nobody");
        let finished = finish(&mut watch_oom(&[], &["--container", &name])?)?.expect_code(2)?;
        println!("  {}", finished.stderr.trim());
        ensure!(finished.stderr.contains(&name), "the message does not say which container");
        ensure!(finished.stdout.is_empty(), "output in spite of the error");
        no_panic(&[finished.stderr])
    });
}

#[test]
fn container_that_is_still_to_come() {
    case("--container NAME --wait: the container starts later", || {
        let engine = docker::shared()?;
        let name = unique("docker");
        let watch = Watch::oom(&["--container", &name, "--wait"])?;
        let mut gate = Gate::new()?;
        let container = engine.start_at_gate(&name, &gate, &LIMIT, TAIL)?;
        let pid = container.pid()?;
        gate.open()?;
        let event = watch.oom_kill(pid)?;
        equal("container.name", event.str("/container/name")?, name.as_str())?;
        equal("container.image", event.str("/container/image")?, Image::shared()?.name.as_str())?;
        watch.stop().map(drop)
    });
}

#[test]
fn container_that_is_still_to_come_and_short_lived() {
    case("--container NAME --wait: the container lives under a second", || {
        let engine = docker::shared()?;
        let name = unique("docker");
        let watch = Watch::oom(&["--container", &name, "--wait"])?;
        let container = engine.create_named(&name, &LIMIT, &["/bin/tail", "/dev/zero"])?;
        container.start_to_end()?.expect_code(137)?;
        let events = watch.events(patience(10), "its kill", |events| {
            events.iter().any(|event| event.is("oom_kill"))
        })?;
        for event in events.iter().filter(|event| event.is("oom_kill")) {
            equal("container.id", event.str("/container/id")?, container.id.as_str())?;
        }
        watch.stop().map(drop)
    });
}
