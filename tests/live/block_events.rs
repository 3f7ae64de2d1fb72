//! Block I/O that fails or is slow.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ctrace_tests::block::{Loop, Mapped, Mounted, of_disk};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::run;
use ctrace_tests::facts::{in_vm, patience};
use ctrace_tests::oom_check::equal;
use ctrace_tests::watch::Watch;

use super::MIB;
use super::block::settled;

#[test]
fn errors_have_their_names() {
    case(
        "a read beyond the end of a loop device's file: EIO, after the part that went well",
        || {
            let disk = Loop::new(MIB)?;
            // The device keeps its size.
            OpenOptions::new().write(true).open(disk.file())?.set_len(MIB / 2 + 4096)?;
            let watch = Watch::of("block,exec", &["--block-slower", "1h"])?;
            let device =
                OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(disk.device())?;
            let mut pages = Pages { bytes: [0; 16 << 10] };
            // The first 4096 bytes are there.
            let read = device.read_at(&mut pages.bytes, MIB / 2);
            println!("  read gave {read:?}");
            if in_vm() && read.as_ref().is_ok_and(|bytes| *bytes == pages.bytes.len()) {
                return Err(cannot("this kernel's loop device gives zeros beyond the end"));
            }
            let whole = device.read_at(&mut pages.bytes, 0);
            ensure!(whole.is_ok(), "a read of what is there failed: {whole:?}");
            let ended = settled(watch)?;
            let name = disk.name();
            let failed: Vec<_> = of_disk(&ended.events, &name).collect();
            equal("events", failed.len(), 1)?;
            let failed = failed[0];
            equal("error", failed.str("/block/error")?, "EIO")?;
            equal("op", failed.str("/block/op")?, "read")?;
            equal("sector", failed.u64("/block/sector")?, MIB / 2 / 512)?;
            equal("bytes", failed.u64("/block/bytes")?, 16 << 10)?;
            equal("process.pid", failed.u64("/process/pid")?, u64::from(std::process::id()))
        },
    );
}

/// Pages that direct I/O takes.
#[repr(C, align(4096))]
struct Pages {
    bytes: [u8; 16 << 10],
}

#[test]
fn errors_of_device_mapper() {
    case("dm-error: the bio's EIO, and nothing of the disk below", || {
        let mapped = Mapped::new("0 2048 error")?;
        let watch = Watch::of("block,exec", &["--block-slower", "1h"])?;
        let device = File::open(mapped.device()?)?;
        let mut buffer = [0; 4096];
        let read = device.read_at(&mut buffer, 0);
        ensure!(read.is_err(), "dm-error gave data");
        let ended = settled(watch)?;
        let disk = mapped.disk()?;
        let failed: Vec<_> = of_disk(&ended.events, &disk).collect();
        ensure!(!failed.is_empty(), "no event");
        for failed in failed {
            equal("error", failed.str("/block/error")?, "EIO")?;
        }
        Ok(())
    });
}

/// Waits until a disk has an I/O under way; nothing tells when it gets one.
fn under_way(disk: &str) -> Result<()> {
    let deadline = Instant::now() + patience(10);
    while fs::read_to_string(format!("/sys/block/{disk}/inflight"))?
        .split_whitespace()
        .all(|n| n == "0")
    {
        ensure!(Instant::now() < deadline, "{disk} has nothing to do");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn slow_is_an_event() {
    case("I/O held back by a frozen file system below: slow, and nothing else is told", || {
        let below = Loop::new(64 * MIB)?;
        let mounted = Mounted::ext4(below.device())?;
        let disk = Loop::inside(mounted.path(), 4 * MIB)?;
        let held = Duration::from_millis(700);
        let watch = Watch::of("block,exec", &["--block-slower", "500ms"])?;
        let write = |sector: u64| -> Result<()> {
            let options = [format!("of={}", disk.device().display()), format!("seek={sector}")];
            let mut dd = Command::new("dd");
            dd.args([
                "if=/dev/zero",
                "bs=4096",
                "count=1",
                "oflag=direct",
                "conv=notrunc",
                "status=none",
            ]);
            run(dd.args(options)).map(drop)
        };
        write(1)?;
        let frozen = mounted.freeze()?;
        thread::scope(|scope| {
            let slow = scope.spawn(|| write(2));
            let begun = under_way(&disk.name());
            // This is the time that is measured.
            thread::sleep(held);
            drop(frozen);
            slow.join().map_err(|_| anyhow::anyhow!("dd panicked"))?.and(begun)
        })?;
        write(3)?;
        let ended = settled(watch)?;
        let name = disk.name();
        let slow: Vec<_> = of_disk(&ended.events, &name).collect();
        equal("events", slow.len(), 1)?;
        let slow = slow[0];
        equal("sector", slow.u64("/block/sector")?, 16)?;
        equal("error", slow.get("/block/error"), None)?;
        let total = Duration::from_nanos(slow.u64("/block/total_ns")?);
        let device = Duration::from_nanos(slow.u64("/block/device_ns")?);
        println!("  total {total:?}, device {device:?}");
        ensure!(total >= Duration::from_millis(500) && total < held + patience(2), "{total:?}");
        ensure!(device * 2 > total, "the driver had it");
        equal("submitter", slow.str("/block/submitter/comm")?, "dd")
    });
}

#[test]
fn slow_without_requests() {
    case("dm-delay: slow bios of the upper device, quick requests of the lower", || {
        let below = Loop::new(4 * MIB)?;
        let table = format!("0 8192 delay {} 0 200", below.device().display());
        let mapped = Mapped::new(&table)?;
        let watch = Watch::of("block,exec", &["--block-slower", "150ms"])?;
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", mapped.device()?.display()));
        run(dd.args(["of=/dev/null", "bs=4096", "count=3", "iflag=direct", "status=none"]))?;
        let ended = settled(watch)?;
        let disk = mapped.disk()?;
        let of_dd = of_disk(&ended.events, &disk)
            .filter(|event| event.str("/block/submitter/comm").is_ok_and(|comm| comm == "dd"));
        let times: Vec<u64> =
            of_dd.map(|event| event.u64("/block/total_ns")).collect::<Result<_>>()?;
        equal("slow", times.len(), 3)?;
        ensure!(times.iter().all(|ns| *ns >= 190_000_000), "{times:?}");
        Ok(())
    });
}
