//! Whose block I/O is: the container that wrote, also where the kernel writes it back later.

use std::process::Command;

use anyhow::{Result, ensure};
use ctrace_tests::block::{Loop, Mounted, of_disk};
use ctrace_tests::case::case;
use ctrace_tests::command::run;
use ctrace_tests::docker;
use ctrace_tests::engine::Container;
use ctrace_tests::event::Event;
use ctrace_tests::facts::v1_mount;
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

use super::MIB;

/// A container with a disk of its own at /data.
pub fn with_disk(options: &[&str], script: &str) -> Result<(Loop, Mounted, Container)> {
    let disk = Loop::new(64 * MIB)?;
    let mounted = Mounted::ext4(disk.device())?;
    let engine = docker::shared()?;
    let volume = format!("{}:/data", mounted.path().display());
    let options = [options, &["--volume", &volume]].concat();
    let container = engine.create(&options, &["/bin/sh", "-c", script])?;
    Ok((disk, mounted, container))
}

fn bytes_of(events: &[&Event]) -> Result<u64> {
    events.iter().map(|event| event.u64("/block/bytes")).sum()
}

#[test]
fn direct_io_is_the_containers() {
    case("direct writes of a container: its own, with the process that wrote", || {
        let script = "dd if=/dev/zero of=/data/file bs=65536 count=16 oflag=direct 2>/dev/null";
        let (disk, _mounted, container) = with_disk(&[], script)?;
        let watch = Watch::of("block:all,exec", &["--container", &container.id])?;
        container.start_to_end()?.expect_code(0)?;
        let enough = watch.event("a write", |event| event.is("block"))?;
        println!("  {enough}");
        run(Command::new("sync").arg("--file-system").arg(_mounted.path()))?;
        let ended = watch.stop()?;
        let name = disk.name();
        let writes: Vec<_> = of_disk(&ended.events, &name)
            .filter(|event| event.get("/block/submitter/comm").is_some_and(|comm| comm == "dd"))
            .filter(|event| event.str("/block/op").is_ok_and(|op| op == "write"))
            .collect();
        for event in &writes {
            ensure!(event.container_id() == Some(&container.id), "another's: {event}");
            equal("process.comm", event.str("/process/comm")?, "dd")?;
            equal("owner_via", event.str("/block/owner_via")?, "blkcg")?;
        }
        equal("bytes", bytes_of(&writes)?, MIB)
    });
}

#[test]
fn buffered_writes() {
    case("buffered writes of a container, written back by the kernel", || {
        let is_v1 = v1_mount("blkio")?.is_some();
        let script = "dd if=/dev/zero of=/data/file bs=65536 count=64 2>/dev/null; sync; sync";
        let (disk, mounted, container) = with_disk(&[], script)?;
        let watch = Watch::of("block:all,exec", &["--bulk-ring-size", "16M"])?;
        container.start_to_end()?.expect_code(0)?;
        run(Command::new("sync").arg("--file-system").arg(mounted.path()))?;
        watch.fence()?;
        let ended = watch.stop()?;
        let name = disk.name();
        let kernels: Vec<_> = of_disk(&ended.events, &name)
            .filter(|event| event.str("/block/op").is_ok_and(|op| op == "write"))
            .filter(|event| {
                let comm = event.str("/block/submitter/comm").unwrap_or_default();
                comm.starts_with("kworker")
            })
            .collect();
        ensure!(!kernels.is_empty(), "the kernel wrote nothing back");
        println!("  e.g. {}", kernels[0]);
        let (own, others): (Vec<&Event>, Vec<&Event>) =
            kernels.iter().partition(|event| event.container_id() == Some(&container.id));
        println!("  the container's: {} bytes, others': {}", bytes_of(&own)?, bytes_of(&others)?);
        if is_v1 {
            equal("the container's", own.len(), 0)?;
            for event in others {
                equal("cgroup.path", event.str("/cgroup/path")?, "/")?;
                ensure!(event.get("/block/root_writeback") == Some(&true.into()), "{event}");
            }
            return Ok(());
        }
        ensure!(bytes_of(&own)? >= 4 * MIB, "less than it wrote");
        for event in own {
            ensure!(event.get("/process").is_none(), "a kworker is not in its cgroup: {event}");
            equal("owner_via", event.str("/block/owner_via")?, "blkcg")?;
        }
        Ok(())
    });
}

#[test]
fn filters_go_by_the_owner() {
    case("--container: I/O of its own, and none of the host's", || {
        let script = "read go </data/go; dd if=/dev/zero of=/data/file bs=65536 count=16 oflag=direct \
                      2>/dev/null";
        let (disk, mounted, container) = with_disk(&[], script)?;
        run(Command::new("mkfifo").arg(mounted.path().join("go")))?;
        run(&mut docker::shared()?.command(&["start", &container.id]))?;
        let watch = Watch::of("block:all", &["--container", &container.id])?;
        // The host's own, on the same disk.
        let host = mounted.path().join("host");
        let mut dd = Command::new("dd");
        dd.args(["if=/dev/zero", "bs=65536", "count=16", "oflag=direct", "status=none"]);
        run(dd.arg(format!("of={}", host.display())))?;
        std::fs::write(mounted.path().join("go"), "go\n")?;
        container.wait()?;
        let name = disk.name();
        watch.events(ctrace_tests::facts::patience(10), "1 MiB", |events| {
            let own: Vec<_> = of_disk(events, &name).collect();
            bytes_of(&own).is_ok_and(|bytes| bytes >= MIB)
        })?;
        let ended = watch.stop()?;
        for event in &ended.events {
            ensure!(event.container_id() == Some(&container.id), "another's: {event}");
        }
        Ok(())
    });
}
