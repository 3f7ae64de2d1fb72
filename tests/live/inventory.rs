//! `ctrace containers`: the list, held against what the engines and the kernel say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ctrace_tests::case::case;
use ctrace_tests::command::{finish, finish_unprivileged, run};
use ctrace_tests::engine::Engine;
use ctrace_tests::event::Event;
use ctrace_tests::facts::{ctrace, rounds};
use ctrace_tests::image::Image;
use ctrace_tests::oci;
use ctrace_tests::oom_check::equal;
use ctrace_tests::parallel::parallel;
use ctrace_tests::process::namespace;
use ctrace_tests::watch::{Watch, no_panic};
use ctrace_tests::{docker, podman};
use serde_json::Value;

use crate::MIB;

const KINDS: [&str; 7] = ["pid", "mnt", "net", "user", "uts", "ipc", "cgroup"];

#[test]
fn docker_container() {
    case("containers: one of docker's", || of_engine(docker::shared()?));
}

#[test]
fn podman_container() {
    case("containers: one of podman's", || of_engine(podman::shared()?));
}

#[test]
fn runc_container() {
    case("containers: one of runc's, without an engine", || of_runtime("runc"));
}

#[test]
fn crun_container() {
    case("containers: one of crun's, without an engine", || of_runtime("crun"));
}

#[test]
fn states() {
    case("containers: created, running, paused, stopped as docker says", || {
        let engine = docker::shared()?;
        let container = engine.create(&[], &["/bin/sleep", "1000"])?;
        let step = |arguments: &[&str], state: &str| {
            if !arguments.is_empty() {
                run(&mut engine.command(&[arguments, &[container.name.as_str()]].concat()))?;
            }
            let listed = one(&list(&["--all"])?, &container.id)?;
            equal("state", listed.str("/state")?, state)?;
            let is_seen = one(&list(&[])?, &container.id).is_ok();
            equal("listed without --all", is_seen, matches!(state, "running" | "paused"))
        };
        step(&[], "created")?;
        step(&["start"], "running")?;
        step(&["pause"], "paused")?;
        step(&["unpause"], "running")?;
        step(&["kill"], "stopped")
    });
}

#[test]
fn text_for_people() {
    case("containers: the table and the details name it", || {
        let engine = docker::shared()?;
        let (container, _gate) = engine.start_gated(&["--label", "colour=blue"], "true")?;
        let table = text(&[])?;
        let row = table.lines().find(|line| line.starts_with(&container.id[..12]));
        let row = row.with_context(|| format!("no line of it in {table}"))?;
        println!("  {row}");
        let words: Vec<&str> = row.split_whitespace().collect();
        let image = Image::shared()?.name.clone();
        let pid = container.pid()?.to_string();
        for part in [&container.name, "docker", &image, "running", &pid] {
            ensure!(words.contains(&part), "no {part} in {row}");
        }
        ensure!(!table.contains('\x1b'), "colour in a pipe");
        let details = text(&[&container.name])?;
        println!("{details}");
        for part in ["colour=blue", &container.id, "config.v2.json", "namespaces"] {
            ensure!(details.contains(part), "no {part}");
        }
        let by_prefix = text(&[&container.id[..12]])?;
        ensure!(by_prefix.contains(&container.id), "not found by the start of its id");
        Ok(())
    });
}

#[test]
fn no_such_container() {
    case("containers: a name that nobody has, exit 2", || {
        let finished = finish(Command::new(ctrace()?).args(["containers", "ctrace-test-nobody"]))?;
        let finished = finished.expect_code(2)?;
        println!("  {}", finished.stderr.trim());
        ensure!(finished.stderr.contains("ctrace-test-nobody"), "the name is not said");
        ensure!(finished.stdout.is_empty(), "output in spite of the error");
        no_panic(&[finished.stderr])
    });
}

#[test]
fn unprivileged() {
    case("containers: an ordinary user gets what there is, and is told what is not", || {
        let (container, _gate) = docker::shared()?.start_gated(&[], "true")?;
        let finished = finish_unprivileged(&["containers", "-o", "json"])?.expect_code(0)?;
        println!("  {}", finished.stderr.trim());
        ensure!(finished.stderr.contains("CAP_DAC_READ_SEARCH"), "what is missing is not said");
        let events: Result<Vec<Event>> = finished.text()?.lines().map(Event::parse).collect();
        let listed = one(&events?, &container.id)?;
        equal("container.name", listed.get("/container/name"), None::<&Value>)?;
        no_panic(&[finished.stderr])
    });
}

#[test]
fn watch_docker() {
    case("containers --watch: docker run --rm starts and ends, with its name", || {
        let watch = watch(&[])?;
        let container = docker::shared()?.create(&["--rm"], &["/bin/true"])?;
        container.start_to_end()?.expect_code(0)?;
        turns(watch, &container.id, Some(&container.name))
    });
}

#[test]
fn watch_podman() {
    case("containers --watch: podman run --rm starts and ends, with its name", || {
        let watch = watch(&[])?;
        let container = podman::shared()?.create(&["--rm"], &["/bin/true"])?;
        container.start_to_end()?.expect_code(0)?;
        turns(watch, &container.id, Some(&container.name))
    });
}

#[test]
fn watch_runc() {
    case("containers --watch: a runc container starts and ends", || {
        let watch = watch(&[])?;
        let (container, mut gate) = oci::Container::start_gated("runc", 64 * MIB, "/bin/true")?;
        let id = container.id.clone();
        gate.open()?;
        container.wait()?;
        drop(container);
        turns(watch, &id, None)
    });
}

#[test]
fn watch_churn() {
    case("containers --watch: many of docker's, 5 at a time: each starts and ends, named", || {
        let watch = watch(&[])?;
        let engine = docker::shared()?;
        let all = parallel(rounds(20), 5, |_| {
            let container = engine.create(&["--rm"], &["/bin/true"])?;
            container.start_to_end()?.expect_code(0)?;
            Ok((container.id.clone(), container.name.clone()))
        })?;
        let is_end = |event: &Event, id: &str| {
            event.is("container_end") && event.str("/container/id").is_ok_and(|known| known == id)
        };
        for (id, _) in &all {
            watch.event("its end", |event| is_end(event, id))?;
        }
        let ended = watch.stop()?;
        for (id, name) in &all {
            let is_its = |event: &&Event| event.str("/container/id").is_ok_and(|known| known == id);
            let turns: Vec<&Event> = ended.events.iter().filter(is_its).collect();
            ensure!(turns.len() == 2, "{turns:#?}");
            for turn in turns {
                ensure!(turn.str("/container/name")? == name, "no name in {turn}");
            }
        }
        println!("  {} starts and ends, all named", all.len());
        equal("lost lines", ended.events.iter().filter(|event| event.is("lost")).count(), 0)
    });
}

#[test]
fn watch_ends_by_itself() {
    case("containers --watch -n 1: after one start, exit 0; --duration as well", || {
        let watch = watch(&["-n", "1"])?;
        let container = docker::shared()?.create(&["--rm"], &["/bin/true"])?;
        container.start_to_end()?.expect_code(0)?;
        let ended = watch.ended(0)?;
        let turns = ended.events.iter().filter(|event| !event.is("container")).count();
        equal("starts and ends", turns, 1)?;
        let arguments = ["containers", "--watch", "--duration", "1s"];
        finish(Command::new(ctrace()?).args(arguments))?.expect_code(0).map(drop)
    });
}

fn of_engine(engine: &Engine) -> Result<()> {
    let (container, _gate) = engine.start_gated(&["--label", "colour=blue"], "true")?;
    let listed = one(&list(&[])?, &container.id)?;
    equal("container.name", listed.str("/container/name")?, container.name.as_str())?;
    equal("container.runtime", listed.str("/container/runtime")?, engine.runtime)?;
    let image = listed.str("/container/image")?.trim_start_matches("localhost/");
    equal("container.image", image, Image::shared()?.name.as_str())?;
    if engine.runtime == "docker" {
        equal("colour", listed.str("/container/labels/colour")?, "blue")?;
    }
    check(&listed, container.pid()?)?;
    // By name, and nothing else.
    let named = list(&[&container.name])?;
    equal("listed by name", named.len(), 1)?;
    one(&named, &container.id).map(drop)
}

fn of_runtime(runtime: &str) -> Result<()> {
    let (container, _gate) = oci::Container::start_gated(runtime, 64 * MIB, "true")?;
    let listed = one(&list(&[])?, &container.id)?;
    equal("container.runtime", listed.str("/container/runtime")?, runtime)?;
    check(&listed, container.pid)
}

/// Holds what is listed against what the kernel says of the container's first process.
fn check(listed: &Event, pid: u32) -> Result<()> {
    equal("pid", listed.u64("/pid")?, u64::from(pid))?;
    equal("state", listed.str("/state")?, "running")?;
    for kind in KINDS {
        let inode = listed.u64(&format!("/namespaces/{kind}"))?;
        equal(format!("namespaces.{kind}"), inode, namespace(pid, kind)?)?;
    }
    let mut own = 0;
    for line in fs::read_to_string(format!("/proc/{pid}/cgroup"))?.lines() {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next(), fields.next(), fields.next());
        let number: u64 = number.context("no number")?.parse()?;
        let path = path.context("no path")?;
        let places = listed.array("/cgroups")?.iter();
        let Some(place) = places.into_iter().find(|place| place["hierarchy"] == number) else {
            ensure!(path == "/" || !path.contains(listed.str("/container/id")?), "no {line}");
            continue;
        };
        let shown = place["path"].as_str().context("no path")?;
        // Some runtimes put the processes one level below.
        let below =
            path.strip_prefix(shown).with_context(|| format!("{shown} is not of {line}"))?;
        ensure!(below.is_empty() || below.starts_with('/'), "{shown} is not around {path}");
        let mount = mount(controllers.context("no controllers")?)?;
        let directory = fs::metadata(mount.join(shown.trim_start_matches('/')))?;
        equal(format!("id in hierarchy {number}"), place["id"].as_u64(), Some(directory.ino()))?;
        own += 1;
    }
    equal("cgroups", listed.array("/cgroups")?.len(), own)?;
    ensure!(own > 0, "no cgroup");
    println!("  pid {pid}, 7 namespaces and {own} cgroups are right");
    Ok(())
}

/// Where the hierarchy of a line of `/proc/PID/cgroup` is mounted.
fn mount(controllers: &str) -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, at, kind, options, ..] = fields.as_slice() else { return None };
        let has = |name: &str| options.split(',').any(|option| option == name);
        let is_it = match controllers {
            "" => *kind == "cgroup2",
            _ => *kind == "cgroup" && controllers.split(',').all(has),
        };
        is_it.then(|| PathBuf::from(*at))
    });
    found.with_context(|| format!("the hierarchy of {controllers:?} is not mounted"))
}

fn list(arguments: &[&str]) -> Result<Vec<Event>> {
    let mut command = Command::new(ctrace()?);
    command.args(["containers", "-o", "json"]).args(arguments);
    let finished = finish(&mut command)?.expect_code(0)?;
    no_panic(std::slice::from_ref(&finished.stderr))?;
    finished.text()?.lines().map(Event::parse).collect()
}

fn text(arguments: &[&str]) -> Result<String> {
    run(Command::new(ctrace()?).arg("containers").args(arguments))
}

/// The only one with this id.
fn one(listed: &[Event], id: &str) -> Result<Event> {
    let has_id = |event: &&Event| event.str("/container/id").is_ok_and(|known| known == id);
    let found: Vec<&Event> = listed.iter().filter(has_id).collect();
    ensure!(found.len() == 1, "{} of {id}: {found:?}", found.len());
    Ok(found[0].clone())
}

fn watch(arguments: &[&str]) -> Result<Watch> {
    let mut command = Command::new(ctrace()?);
    command.args(["containers", "--watch", "-o", "json"]).args(arguments);
    Watch::start(command)?.attached()
}

/// The container has started once and ended once, in this order.
fn turns(watch: Watch, id: &str, name: Option<&str>) -> Result<()> {
    let is_its = |event: &Event| event.str("/container/id").is_ok_and(|known| known == id);
    watch.event("its end", |event| event.is("container_end") && is_its(event))?;
    let ended = watch.stop()?;
    let turns: Vec<&Event> = ended.events.iter().filter(|event| is_its(event)).collect();
    ensure!(turns.len() == 2, "{turns:#?}");
    ensure!(turns[0].is("container_start") && turns[1].is("container_end"), "{turns:#?}");
    for turn in &turns {
        let known = turn.get("/container/name").and_then(Value::as_str);
        equal("container.name", known, name)?;
        ensure!(!turn.array("/cgroups")?.is_empty(), "no cgroup in {turn}");
    }
    let time = |turn: &Event| turn.str("/time").map(str::to_owned);
    let (start, end) = (time(turns[0])?, time(turns[1])?);
    println!("  from {start} to {end}");
    ensure!(start < end, "it ends before it starts");
    equal("lost lines", ended.events.iter().filter(|event| event.is("lost")).count(), 0)
}
