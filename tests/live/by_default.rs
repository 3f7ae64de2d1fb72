//! `ctrace watch` without options: what is told of a container in trouble.

use anyhow::ensure;
use ctrace_tests::block::Counted;
use ctrace_tests::case::case;
use ctrace_tests::event::Event;
use ctrace_tests::oom_check::equal;
use ctrace_tests::report::block_of;
use ctrace_tests::watch::Watch;

use super::MIB;
use super::block_owner::with_disk;

/// Three denied mounts, a child that takes more memory than there is, more CPU time than the quota,
/// and a mebibyte written; then a while in which its cgroup can be looked at.
const SCRIPT: &str = "\
for i in 1 2 3; do busybox mount -t tmpfs none /data 2>/dev/null; done
tail /dev/zero
dd if=/dev/zero of=/data/file bs=65536 count=16 oflag=direct 2>/dev/null
i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done
sleep 3
exit 3";
const OPTIONS: [&str; 3] = ["--memory=64m", "--memory-swap=64m", "--cpus=0.1"];

#[test]
fn the_troubles_of_a_container() {
    case("no options: denials, an OOM kill, a quota, its end; all summed up at the end", || {
        let (disk, _mounted, container) = with_disk(&OPTIONS, SCRIPT)?;
        let watch = Watch::by_default(&[])?;
        let before = Counted::of(&disk.name())?;
        container.start_to_end()?.expect_code(3)?;
        let kernel = Counted::of(&disk.name())?.since(before);
        let is_mine = |event: &Event| event.container_id() == Some(&container.id);
        for kind in ["seccomp", "oom_kill", "throttle"] {
            let event = watch.event(kind, |event| event.is(kind) && is_mine(event))?;
            println!("  {event}");
        }
        let is_end = |event: &Event| event.get("/exit/container_end") == Some(&true.into());
        let end = watch.event("the end", |event| is_end(event) && is_mine(event))?;
        equal("exit.runtime_code", end.u64("/exit/runtime_code")?, 3)?;
        equal("OOM kills before", end.u64("/exit/oom_kills_inside")?, 1)?;
        let ended = watch.stop()?;
        let child = ended.events.iter().find(|event| {
            is_mine(event)
                && event.is("exit")
                && event.get("/exit/cause/kind") == Some(&"oom".into())
        });
        ensure!(child.is_some(), "the child's end has no cause");

        let report = ended.report()?;
        let mine = report.container(&container.name)?;
        println!("  {mine}");
        equal("id", mine["id"].as_str(), Some(container.id.as_str()))?;
        equal("denials", mine["denials"].as_u64(), Some(3))?;
        equal("oom_kills", mine["oom_kills"].as_u64(), Some(1))?;
        ensure!(mine["throttled_ns"].as_u64() > Some(0), "not throttled");
        ensure!(mine["run_queue"]["p99_ns"].as_u64() > Some(0), "never waited for a CPU");
        let written = block_of(mine, &disk.name())?;
        println!("  {written:?}, the disk {kernel:?}");
        // The file system's own writes are others'.
        let of_disk = kernel.written_bytes;
        ensure!((MIB..=of_disk).contains(&written.written_bytes), "{written:?} of {of_disk}");
        ensure!(written.writes >= 16, "{written:?}");
        Ok(())
    });
}
