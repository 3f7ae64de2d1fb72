//! Processes whose cgroups name different owners: controllers that disagree, containers in
//! containers, one number as the id of two cgroups.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::cgroup::Cgroup;
use ctrace_tests::command::run;
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{hybrid, v1_mount, v2_mount};
use ctrace_tests::gate::Gate;
use ctrace_tests::marked::{self, mark_of};
use ctrace_tests::names::unique;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::cgroup;
use ctrace_tests::watch::Watch;

use crate::MIB;

/// Mount points of v1's pids controller, by which ctrace knows a task's v1 cgroups, and of v2.
fn both_mounts() -> Result<(PathBuf, PathBuf)> {
    match (v1_mount("pids")?, v2_mount()?) {
        (Some(v1), Some(v2)) if hybrid()? => Ok((v1, v2)),
        _ => Err(cannot("needs cgroups of v1 and v2 at a time")),
    }
}

fn exec_of(watch: &Watch, mark: &str) -> Result<Event> {
    let event = watch.event("the marked exec", |event| mark_of(event) == Some(mark))?;
    println!("  {event}");
    Ok(event)
}

/// A container that becomes the marked command once its gate is open.
fn gated(mark: &str) -> Result<(Container, Gate)> {
    docker::shared()?.start_gated(&[], &format!("{} {mark}", marked::PROGRAM))
}

#[test]
fn a_container_of_v1_in_a_unit_of_v2() {
    case("controllers disagree: runc's container in v1, a service in v2", || {
        let (_, v2) = both_mounts()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("disagree");
        let then = format!("{} {mark}", marked::PROGRAM);
        let (container, mut gate) = oci::Container::start_gated("runc", 32 * MIB, &then)?;
        let unit = Cgroup::in_hierarchy(&v2, &(unique("unit") + ".service"))?;
        unit.take(container.pid)?;
        gate.open()?;
        let event = exec_of(&watch, &mark)?;
        equal("cgroup.v2_id", event.u64("/cgroup/v2_id")?, unit.id()?)?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        container.wait()?;
        watch.stop().map(drop)
    });
}

#[test]
fn a_container_of_v2_in_a_unit_of_v1() {
    case("controllers disagree: docker's container in v2, a service in v1", || {
        let (v1, _) = both_mounts()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("disagree");
        let (container, mut gate) = gated(&mark)?;
        in_v2(&container)?;
        let unit = Cgroup::in_hierarchy(&v1, &(unique("unit") + ".service"))?;
        unit.take(container.pid()?)?;
        gate.open()?;
        let event = exec_of(&watch, &mark)?;
        equal("cgroup.v1_id", event.u64("/cgroup/v1_id")?, unit.id()?)?;
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("cgroup.unit", event.get("/cgroup/unit"), None)?;
        watch.stop().map(drop)
    });
}

#[test]
fn two_containers_of_one_process() {
    case("controllers disagree: one container in v1, another in v2", || {
        let (v1, _) = both_mounts()?;
        let watch = Watch::processes(&[])?;
        let mark = unique("disagree");
        let (container, mut gate) = gated(&mark)?;
        let (other, _other_gate) = gated(&unique("other"))?;
        in_v2(&container)?;
        let path = cgroup(other.pid()?, "pids")?;
        let procs = v1.join(path.trim_start_matches('/')).join("cgroup.procs");
        fs::write(&procs, container.pid()?.to_string()).with_context(|| format!("{procs:?}"))?;
        gate.open()?;
        let event = exec_of(&watch, &mark)?;
        // Its mounts are still those of the container that it was made for.
        equal("container.id", event.container_id(), Some(container.id.as_str()))?;
        equal("container.name", event.container_name(), Some(container.name.as_str()))?;
        watch.stop().map(drop)
    });
}

fn in_v2(container: &Container) -> Result<()> {
    let path = cgroup(container.pid()?, "")?;
    if !path.contains(&container.id) {
        return Err(cannot(format!("this runc does not join v2: {path}")));
    }
    Ok(())
}

#[test]
fn runc_in_a_container() {
    case("a runc container below a docker container's cgroup: the whole chain", || {
        both_mounts().context("on v2 a cgroup with processes takes no children with limits")?;
        let watch = Watch::processes(&[])?;
        let (outer, _gate) = gated(&unique("outer"))?;
        let parent = cgroup(outer.pid()?, "pids")?;
        let mark = unique("inner");
        let command = marked::command(&mark, 2);
        let inner = oci::Container::start_below(&parent, "runc", 32 * MIB, &command, None)?;
        inner.wait()?;
        let event = exec_of(&watch, &mark)?;
        equal("container.id", event.container_id(), Some(inner.id.as_str()))?;
        equal("container.runtime", event.str("/container/runtime")?, "runc")?;
        is_around(&event, &outer)?;
        watch.stop().map(drop)
    });
}

#[test]
fn a_container_of_an_unknown_runtime_in_a_container() {
    case("a scope of podman's below a docker container's cgroup: the whole chain", || {
        let watch = Watch::processes(&[])?;
        let mark = unique("inner");
        let (outer, mut gate) = gated(&mark)?;
        let mount = v2_mount()?.context("no v2")?;
        let path = cgroup(outer.pid()?, "")?;
        in_v2(&outer)?;
        let id: String = outer.id.chars().rev().collect();
        let inner = Cgroup::in_hierarchy(&mount, &format!("{path}/libpod-{id}.scope"))?;
        inner.take(outer.pid()?)?;
        gate.open()?;
        let event = exec_of(&watch, &mark)?;
        equal("container.id", event.container_id(), Some(id.as_str()))?;
        equal("container.runtime", event.str("/container/runtime")?, "podman")?;
        equal("attribution", event.str("/attribution")?, "cgroup_path")?;
        is_around(&event, &outer)?;
        watch.stop().map(drop)
    });
}

/// `container.outer` is this container alone.
fn is_around(event: &Event, outer: &Container) -> Result<()> {
    let [around] = event.array("/container/outer")? else {
        bail!("not one container around: {event}");
    };
    equal("container.outer.id", around["id"].as_str(), Some(outer.id.as_str()))?;
    equal("container.outer.name", around["name"].as_str(), Some(outer.name.as_str()))
}

#[test]
fn one_number_in_two_hierarchies() {
    case("one number is the id of two cgroups with different owners", || {
        let (v1, v2) = both_mounts()?;
        let name = unique("numbers");
        let _v1_top = Cgroup::in_hierarchy(&v1, &name)?;
        let _v2_top = Cgroup::in_hierarchy(&v2, &name)?;
        let (v1_scope, v2_scope, number) = same_number(&name, &v1, &v2)?;
        println!("  {number}: {} and {}", v1_scope.path_text(), v2_scope.path_text());
        let watch = Watch::processes(&[])?;
        for (scope, field) in [(&v1_scope, "/cgroup/v1_id"), (&v2_scope, "/cgroup/v2_id")] {
            let mark = unique("number");
            let mut command = Command::new(marked::PROGRAM);
            run(&mut scope.enter(command.arg(&mark)))?;
            let event = exec_of(&watch, &mark)?;
            equal(field, event.u64(field)?, number)?;
            let path = scope.path_text();
            let id = Path::new(&path).file_name().and_then(|name| name.to_str());
            let id = id.and_then(|name| name.strip_prefix("docker-")?.strip_suffix(".scope"));
            equal("container.id", event.container_id(), id)?;
        }
        watch.stop().map(drop)
    });
}

/// Makes cgroups below the one of this name, on v1 and v2, until one of each have the same number.
///
/// Every hierarchy counts its directories and files up from 1 and never back.
fn same_number(top: &str, v1: &Path, v2: &Path) -> Result<(Cgroup, Cgroup, u64)> {
    // Containers by their names alone.
    let scope = |mount: &Path, number: u64| -> Result<Cgroup> {
        Cgroup::in_hierarchy(mount, &format!("{top}/docker-{number:064x}.scope"))
    };
    let next = |mount: &Path| -> Result<u64> {
        let trial = mount.join(top).join("trial");
        fs::create_dir(&trial)?;
        let id = fs::metadata(&trial)?.ino();
        fs::remove_dir(&trial)?;
        Ok(id)
    };
    let v1_is_behind = next(v1)? < next(v2)?;
    let (behind, ahead) = if v1_is_behind { (v1, v2) } else { (v2, v1) };
    let mut made = BTreeMap::new();
    for number in 0..40 {
        let one = scope(ahead, number)?;
        made.insert(one.id()?, one);
    }
    let last = *made.keys().next_back().context("none made")?;
    let mut tried = 0u64;
    let other = loop {
        let one = scope(behind, 1000 + tried)?;
        let id = one.id()?;
        if made.contains_key(&id) {
            break one;
        }
        tried += 1;
        if id > last || tried > 50_000 {
            return Err(cannot(format!("no equal numbers in {tried} tries: {id} and {last}")));
        }
    };
    let number = other.id()?;
    let one = made.remove(&number).context("just found")?;
    println!("  {tried} tries");
    ensure!(one.id()? == number, "numbers change");
    Ok(if v1_is_behind { (other, one, number) } else { (one, other, number) })
}
