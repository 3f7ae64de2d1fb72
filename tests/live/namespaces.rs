//! Containers that share namespaces, and processes that change theirs.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::{finish, run};
use ctrace_tests::docker;
use ctrace_tests::engine::Engine;
use ctrace_tests::event::Event;
use ctrace_tests::facts::program;
use ctrace_tests::marked::{self, Tally, Truth, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::namespace;
use ctrace_tests::watch::Watch;

/// Runs marked commands in a container that is removed at its end, and gives their events.
fn run_marked(engine: &Engine, options: &[&str]) -> Result<Vec<Event>> {
    let watch = Watch::processes(&[])?;
    let name = unique("shared");
    let command = marked::command(&name, 3);
    let id = engine.run_to_end(&name, options, &command.each_ref().map(String::as_str))?;
    watch.fence()?;
    let ended = watch.stop()?;
    let truths = BTreeMap::from([(name.clone(), Truth { id, name: Some(name.clone()) })]);
    Tally::of(&ended.events, &truths).check(8)?;
    let mut events = ended.events;
    events.retain(|event| mark_of(event) == Some(&name));
    Ok(events)
}

#[test]
fn a_network_of_another_container() {
    case("--network container:X: each event in its own container", || {
        let engine = docker::shared()?;
        let (owner, mut gate) = engine.start_gated(&[], "/bin/true /gate")?;
        let (pid, net) = (owner.pid()?, namespace(owner.pid()?, "net")?);
        let sharing = engine.with_network(&format!("container:{}", owner.name));
        for event in run_marked(&sharing, &[])? {
            equal("namespaces.net", event.namespace("net"), Some(net))?;
        }
        // The owner of the network stays itself.
        let watch = Watch::processes(&[])?;
        gate.open()?;
        let event =
            watch.event("the exec of the owner", |event| event.is("exec") && event.is_of(pid))?;
        equal("container.id", event.container_id(), Some(owner.id.as_str()))?;
        watch.stop().map(drop)
    });
}

#[test]
fn the_hosts_network() {
    case("--network host: the container's all the same", || {
        let net = namespace(std::process::id(), "net")?;
        for event in run_marked(&docker::shared()?.with_network("host"), &[])? {
            equal("namespaces.net", event.namespace("net"), Some(net))?;
        }
        Ok(())
    });
}

#[test]
fn the_hosts_processes() {
    case("--pid host: the container's all the same", || {
        let pids = namespace(std::process::id(), "pid")?;
        for event in run_marked(docker::shared()?, &["--pid=host"])? {
            equal("namespaces.pid", event.namespace("pid"), Some(pids))?;
            let pid = event.u64("/process/pid")?;
            equal("process.container_pid", event.u64("/process/container_pid")?, pid)?;
        }
        Ok(())
    });
}

#[test]
fn mounts_of_its_own_inside_a_container() {
    case("unshare -m in a container: the container's all the same", || {
        let engine = docker::shared()?;
        let name = unique("unshare");
        // The rights to unshare and nothing else of --privileged, which not every host can give.
        let options = ["--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"];
        let watch = Watch::processes(&[])?;
        let script = format!(
            "{0} \"$0\"; unshare -m {0} \"$0\"; unshare -m sh -c '{0} \"$0\"; :' \"$0\"; :",
            marked::PROGRAM
        );
        let id = engine.run_to_end(&name, &options, &["/bin/sh", "-c", &script, &name])?;
        watch.fence()?;
        let ended = watch.stop()?;
        let truths = BTreeMap::from([(name.clone(), Truth { id, name: Some(name.clone()) })]);
        Tally::of(&ended.events, &truths).check(8)?;
        let marked = ended.events.iter().filter(|event| mark_of(event) == Some(&name));
        let mut mounts: Vec<_> = marked.filter_map(|event| event.namespace("mnt")).collect();
        println!("  mount namespaces {mounts:?}");
        equal("marked execs", mounts.len(), 3)?;
        // The second unshare may get the number of the first, which is gone.
        mounts.dedup();
        ensure!(mounts.len() > 1, "nothing was unshared");
        Ok(())
    });
}

#[test]
fn a_process_of_the_host_in_a_younger_containers_mounts() {
    case("nsenter -m from the host, container younger than ctrace: by its mounts", || {
        nsenter(true)
    });
}

#[test]
fn a_process_of_the_host_in_an_older_containers_mounts() {
    case("nsenter -m from the host, container older than ctrace: by its mounts", || nsenter(false));
}

fn nsenter(ctrace_first: bool) -> Result<()> {
    let nsenter = program("nsenter")?;
    let engine = docker::shared()?;
    let early = ctrace_first.then(|| Watch::processes(&[])).transpose()?;
    let (container, _gate) = engine.start_gated(&[], "/bin/true")?;
    let (_other, _other_gate) = engine.start_gated(&[], "/bin/true")?;
    let pid = container.pid()?;
    let watch = early.map_or_else(|| Watch::processes(&[]), Ok)?;
    let target = format!("--target={pid}");
    let enter = |what: &str| -> Result<Event> {
        let mark = unique("nsenter");
        run(Command::new(&nsenter).args([&target, what, marked::PROGRAM, &mark]))?;
        watch.event("its exec", |event| mark_of(event) == Some(&mark))
    };
    // With the container's network alone it stays among the host's mounts.
    equal("container of one in its network", enter("--net")?.get("/container"), None)?;
    let event = enter("--mount")?;
    println!("  {event}");
    equal("namespaces.mnt", event.namespace("mnt"), Some(namespace(pid, "mnt")?))?;
    if event.namespace("mnt_id").is_none() {
        return Err(cannot("this kernel does not number namespaces: their inodes come again"));
    }
    equal("container.id", event.container_id(), Some(container.id.as_str()))?;
    equal("container.name", event.container_name(), Some(container.name.as_str()))?;
    // ctrace has seen processes of a younger one; an older one's mounts it has to read.
    let vias: &[&str] = if ctrace_first { &["namespace"] } else { &["namespace", "mountinfo"] };
    let via = event.str("/attribution")?;
    ensure!(vias.contains(&via), "via {via}");
    equal("container.phase", event.str("/container/phase")?, "joining")?;
    watch.stop().map(drop)
}

#[test]
fn a_privileged_container() {
    case("--privileged with the host's namespaces: the container's all the same", || {
        let engine = docker::shared()?;
        let options = ["--privileged", "--pid=host", "--ipc=host", "--uts=host"];
        let name = unique("privileged");
        // Whether this host lets docker run one at all.
        let mut trial = engine.command(&["run", "--rm", "--name", &name, "--network=none"]);
        trial.arg("--privileged").arg(&ctrace_tests::image::Image::shared()?.name);
        let tried = finish(trial.arg("/bin/true"))?;
        if !tried.status.success() {
            return Err(cannot(format!("no --privileged: {}", tried.stderr.trim())));
        }
        run_marked(&engine.with_network("host"), &options).map(drop)
    });
}
