//! Block I/O: what the kernel, fio and the kernel's own tracepoints say of the same run.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ctrace_tests::block::{
    Counted, Done, Loop, Mapped, Mounted, Zram, fio, name_of, of_disk, spare_virtio_disk,
};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::{finish, run};
use ctrace_tests::event::Event;
use ctrace_tests::facts::{in_vm, patience, program};
use ctrace_tests::names::TempDir;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, signal};
use ctrace_tests::watch::{Ended, Watch};
use serde_json::Value;

use super::MIB;

/// Everything, the fence's processes too, of all disks of the machine.
fn watch_all() -> Result<Watch> {
    Watch::of("block:all,exec", &["--bulk-ring-size", "16M"])
}

/// At a rate that the test reads in time: what is lost is another test's.
const RATE: &str = "--rate_iops=2000,2000";

fn load() -> [&'static str; 7] {
    let size = if in_vm() { "--io_size=4m" } else { "--io_size=16m" };
    ["--rw=randrw", "--size=16m", size, "--ioengine=libaio", "--iodepth=8", "--fsync=64", RATE]
}

/// Stops it once all that happened has been seen.
fn settled(watch: Watch) -> Result<Ended> {
    watch.fence()?;
    let ended = watch.stop()?;
    for event in ended.events.iter().filter(|event| event.is("lost")) {
        println!("  {event}");
    }
    let lost = ended
        .events
        .iter()
        .try_fold(0, |sum, event| Ok::<_, anyhow::Error>(sum + event.lost(None)?));
    equal("lost", lost?, 0)?;
    Ok(ended)
}

/// Runs of which one has to be equal to the last request.
const RUNS: usize = 5;

/// What ctrace and the kernel count for the same run, and what fio did and ctrace saw.
///
/// On some machines the kernel's tracepoints themselves miss a few requests now and then: of 28 runs
/// with perf on the same tracepoint, ctrace had what perf had in all, and in 2 both had two requests
/// less than /sys/block/*/stat. So one run of some has to be equal, and none may have more, or miss
/// many.
fn counted_run(
    disk: &str,
    run: impl Fn() -> Result<(Done, Done)>,
) -> Result<(Counted, Ended, (Done, Done))> {
    for _ in 0..RUNS {
        let watch = watch_all()?;
        let before = Counted::of(disk)?;
        let done = run()?;
        let kernel = Counted::of(disk)?.since(before);
        let ended = settled(watch)?;
        let seen = Counted::of_events(&ended.events, disk)?;
        println!("  {seen:?}, the kernel {kernel:?}");
        if seen == kernel {
            return Ok((seen, ended, done));
        }
        let (seen, kernel) = (seen.all(), kernel.all());
        ensure!(seen < kernel && (kernel - seen) * 50 < kernel, "{seen} of {kernel} requests");
    }
    bail!("no run of {RUNS} was equal to /sys/block/*/stat")
}

fn counts_and_bytes(device: &Path) -> Result<()> {
    let disk = name_of(device);
    let (seen, ended, (read, written)) = counted_run(&disk, || fio(device, &load()))?;
    equal("bytes that fio read", seen.read_bytes, read.bytes)?;
    equal("bytes that fio wrote", seen.written_bytes, written.bytes)?;
    equal("reads of fio", seen.reads, read.ios)?;
    let own = of_disk(&ended.events, &disk)
        .filter(|event| event.str("/block/op").is_ok_and(|op| op == "read"));
    let own: Vec<u64> = own.map(|event| event.u64("/block/total_ns")).collect::<Result<_>>()?;
    let mean = own.iter().sum::<u64>() as f64 / own.len() as f64;
    println!("  mean read: {mean:.0} ns, of fio {:.0} ns", read.mean_ns);
    ensure!(mean <= read.mean_ns, "longer than fio waited");
    for event in of_disk(&ended.events, &disk)
        .filter(|event| event.u64("/block/bytes").is_ok_and(|bytes| bytes > 0))
    {
        let (queue, device) = (event.u64("/block/queue_ns")?, event.u64("/block/device_ns")?);
        ensure!(queue + device == event.u64("/block/total_ns")?, "times do not add up: {event}");
        ensure!(event.str("/block/submitter/comm")? == "fio", "not by fio: {event}");
    }
    Ok(())
}

#[test]
fn counts_and_bytes_of_a_loop_device() {
    case("fio on a loop device: count and bytes equal the kernel's and fio's", || {
        counts_and_bytes(Loop::new(16 * MIB)?.device())
    });
}

#[test]
fn counts_and_bytes_of_a_virtio_disk() {
    case("fio on a virtio disk: count and bytes equal the kernel's and fio's", || {
        if !in_vm() {
            return Err(cannot("the only virtio disk here is the machine's own"));
        }
        counts_and_bytes(&spare_virtio_disk()?)
    });
}

#[test]
fn merged_bios_count_once() {
    case("sequential writes in batches: requests of many bios, each counted once", || {
        let disk = Loop::new(16 * MIB)?;
        let name = disk.name();
        let merges = || -> Result<u64> {
            let text = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
            Ok(text.split_whitespace().nth(5).context("no merges")?.parse()?)
        };
        let before = merges()?;
        let options = ["--rw=write", "--size=8m", "--ioengine=libaio", "--iodepth=32"];
        let options = [&options[..], &["--iodepth_batch_submit=16", RATE]].concat();
        let (seen, ended, (_, written)) = counted_run(&name, || fio(disk.device(), &options))?;
        let merged = merges()? - before;
        println!("  {merged} bios were merged into others' requests");
        ensure!(merged > 0, "nothing was merged: nothing is tested");
        equal("bytes that fio wrote", seen.written_bytes, written.bytes)?;
        for event in of_disk(&ended.events, &name) {
            let queue = event.u64("/block/queue_ns")?;
            ensure!(queue < event.u64("/block/total_ns")?, "times: {event}");
            ensure!(event.str("/block/submitter/comm")? == "fio", "not by fio: {event}");
        }
        Ok(())
    });
}

#[test]
fn totals_in_the_kernel() {
    case("sums in the kernel: count and bytes of a disk, although nothing is an event", || {
        let disk = Loop::new(16 * MIB)?;
        let number = fs::read_to_string(format!("/sys/block/{}/dev", disk.name()))?;
        let (major, minor) = number.trim().split_once(':').context("no device number")?;
        let device = major.parse::<u32>()? << 20 | minor.parse::<u32>()?;
        for _ in 0..RUNS {
            let watch = Watch::of("block,exec", &["--block-slower", "1h"])?;
            let before = Counted::of(&disk.name())?;
            fio(disk.device(), &load())?;
            watch.fence()?;
            let kernel = Counted::of(&disk.name())?.since(before);
            let sums = |measure| totals(watch.pid(), measure, device);
            let ((reads, read_bytes), (writes, written_bytes)) = (sums(2)?, sums(3)?);
            let flushes = sums(4)?.0;
            let seen = Counted { reads, read_bytes, writes, written_bytes, flushes };
            println!("  {seen:?}, the kernel {kernel:?}");
            let ended = settled(watch)?;
            equal("events", of_disk(&ended.events, &disk.name()).count(), 0)?;
            if seen == kernel {
                return Ok(());
            }
            // As in `counted_run`.
            let (seen, kernel) = (seen.all(), kernel.all());
            ensure!(seen < kernel && (kernel - seen) * 50 < kernel, "{seen} of {kernel} requests");
        }
        bail!("no run of {RUNS} was equal to /sys/block/*/stat")
    });
}
/// How many of a measure, and their bytes, the maps of this process have for a device, by bpftool.
fn totals(pid: u32, measure: u32, device: u32) -> Result<(u64, u64)> {
    let bpftool = program("bpftool")?;
    let mut sums = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(info) = fs::read_to_string(entry?.path()) else { continue };
        let Some(id) = info.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        let map = run(Command::new(&bpftool).args(["-j", "map", "show", "id", id.trim()]))?;
        if serde_json::from_str::<Value>(&map)?["name"] != "TOTALS" {
            continue;
        }
        let dump = run(Command::new(&bpftool).args(["-j", "map", "dump", "id", id.trim()]))?;
        let (mut count, mut bytes) = (0, 0);
        for entry in serde_json::from_str::<Vec<Value>>(&dump)? {
            let raw = |key: &str| -> Result<Vec<u8>> {
                let list = entry[key].as_array().context("no bytes")?;
                let byte = |hex: &Value| {
                    let digits = hex.as_str().and_then(|hex| hex.strip_prefix("0x"));
                    Ok(u8::from_str_radix(digits.context("no hexadecimal byte")?, 16)?)
                };
                list.iter().map(byte).collect()
            };
            let (key, value) = (raw("key")?, raw("value")?);
            // `TotalKey`: a place of 16 bytes, measure, detail. `Total`: nanoseconds, bytes, slots.
            let word = |at: usize| u32::from_ne_bytes(key[at..at + 4].try_into().expect("4 bytes"));
            if (word(16), word(20)) != (measure, device) {
                continue;
            }
            let mut numbers =
                value.chunks_exact(8).map(|it| u64::from_ne_bytes(it.try_into().expect("8 bytes")));
            let nanoseconds = numbers.next().context("no sum")?;
            ensure!(nanoseconds > 0, "no time in {entry}");
            bytes += numbers.next().context("no bytes")?;
            count += numbers.sum::<u64>();
        }
        sums = Some((count, bytes));
    }
    sums.context("ctrace has no map TOTALS")
}

#[test]
fn devices_without_requests() {
    case("fio on zram: bios are counted once, and have no queue", || {
        let zram = Zram::new(16 * MIB)?;
        let options = ["--rw=randrw", "--size=16m", "--io_size=4m", "--ioengine=psync", RATE];
        let device = zram.device();
        let (seen, ended, (read, written)) = counted_run(&zram.name(), || fio(&device, &options))?;
        equal(
            "bytes that fio read and wrote",
            seen.read_bytes + seen.written_bytes,
            read.bytes + written.bytes,
        )?;
        for event in of_disk(&ended.events, &zram.name()) {
            ensure!(event.get("/block/queue_ns").is_none(), "a queue: {event}");
            event.u64("/block/total_ns")?;
        }
        Ok(())
    });
}

#[test]
fn layers_count_once_each() {
    case("device mapper on a loop device: each layer's I/O once", || {
        let below = Loop::new(8 * MIB)?;
        let table = format!("0 16384 linear {} 0", below.device().display());
        let mapped = Mapped::new(&table)?;
        let (upper, lower) = (mapped.disk()?, below.name());
        let watch = watch_all()?;
        let before = [Counted::of(&upper)?, Counted::of(&lower)?];
        fio(&mapped.device()?, &["--rw=randrw", "--size=8m", "--io_size=2m", "--ioengine=psync"])?;
        let kernel = [Counted::of(&upper)?.since(before[0]), Counted::of(&lower)?.since(before[1])];
        let ended = settled(watch)?;
        equal("upper", Counted::of_events(&ended.events, &upper)?, kernel[0])?;
        equal("lower", Counted::of_events(&ended.events, &lower)?, kernel[1])
    });
}

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
            // This is the time that is measured.
            thread::sleep(held);
            drop(frozen);
            slow.join().map_err(|_| anyhow::anyhow!("dd panicked"))?
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

/// fio with a process id that is known before it begins, so that ctrace can be told to look at it
/// alone: another program that records makes I/O of its own.
struct GatedFio {
    child: Child,
    gate: PathBuf,
    /// Both ways, so that neither side waits for the other to open it.
    gate_file: File,
    end_file: File,
    _directory: TempDir,
}

impl GatedFio {
    const BYTES: u64 = 2 * MIB;

    fn start(device: &Path) -> Result<Self> {
        let directory = TempDir::new("gate")?;
        let (gate, end) = (directory.path().join("gate"), directory.path().join("gate.end"));
        run(Command::new("mkfifo").args([&gate, &end]))?;
        let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let (gate_file, end_file) = (both(&gate)?, both(&end)?);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read go <\"$0\" && exec \"$@\""]).arg(&gate).arg(program("fio")?);
        command.arg(format!("--filename={}", device.display()));
        // Threads, whose process is the one that was started.
        command.args(["--name=ctrace-test", "--thread", "--direct=1", "--bs=4k", "--rw=randrw"]);
        command.args(["--size=8m", "--ioengine=libaio", "--iodepth=4"]);
        command.arg(format!("--io_size={}", GatedFio::BYTES)).stdout(Stdio::null());
        let child = command.spawn()?;
        Ok(GatedFio { child, gate, gate_file, end_file, _directory: directory })
    }

    /// Everything of fio, and of it alone.
    fn watch(&self) -> Result<Watch> {
        Watch::of("block:all", &["--pid", &self.child.id().to_string()])
    }

    fn open(mut gate_file: &File) -> Result<()> {
        Ok(gate_file.write_all(b"go\n")?)
    }

    /// Waits until it has ended, and says so at the other gate.
    fn ended(&mut self) -> Result<()> {
        let status = self.child.wait()?;
        self.end_file.write_all(b"end\n")?;
        ensure!(status.success(), "fio gave {status}");
        Ok(())
    }

    /// Stops ctrace once it has seen all.
    fn settled(&self, watch: Watch, disk: &str) -> Result<Vec<Event>> {
        watch.events(patience(10), "all of fio's bytes", |events| {
            let bytes: u64 =
                of_disk(events, disk).flat_map(|event| event.u64("/block/bytes")).sum();
            bytes >= GatedFio::BYTES
        })?;
        let ended = watch.stop()?;
        let pid = u64::from(self.child.id());
        for event in &ended.events {
            ensure!(event.u64("/process/pid").is_ok_and(|it| it == pid), "another's: {event}");
        }
        Ok(ended.events)
    }
}

impl Drop for GatedFio {
    fn drop(&mut self) {
        // It has ended unless the test failed; its id stays its own until it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request as the kernel's tracepoints show it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Traced {
    sector: u64,
    rwbs: String,
    sectors: u64,
}

#[test]
fn the_kernels_tracepoints() {
    case("the same requests and times as perf record -e block:* shows", || {
        let perf = program("perf")?;
        let disk = Loop::new(8 * MIB)?;
        let directory = TempDir::new("perf")?;
        let data = directory.path().join("perf.data");
        // perf finds tracepoints in tracefs, which need not be mounted: it gets a mount of its own.
        let script = "mount -t tracefs tracefs /sys/kernel/tracing || exit 77; exec \"$0\" \"$@\"";
        let mut fio = GatedFio::start(disk.device())?;
        let watch = fio.watch()?;
        let mut record = Command::new(program("unshare")?);
        record.args(["--mount", "/bin/sh", "-c", script]).arg(&perf);
        record.args(["record", "-a", "-m", "1024", "-o"]).arg(&data);
        record.args(["-e", "block:block_rq_issue", "-e", "block:block_rq_complete", "--"]);
        // It records until its command ends, which opens the gate and waits for fio's end.
        record.args(["/bin/sh", "-c", "echo go >\"$0\"; read end <\"$0.end\""]).arg(&fio.gate);
        let gate_file = fio.gate_file.try_clone()?;
        let recording = thread::spawn(move || {
            let recorded = finish(&mut record);
            // Where it did not come to its command, fio must not wait for ever.
            GatedFio::open(&gate_file).and(recorded)
        });
        fio.ended()?;
        let recorded =
            recording.join().map_err(|_| anyhow::anyhow!("perf's thread panicked"))??;
        if recorded.status.code() == Some(77) || recorded.stderr.contains("unknown tracepoint") {
            return Err(cannot(format!("perf has no tracepoints: {}", recorded.stderr)));
        }
        recorded.expect_code(0)?;
        let events = fio.settled(watch, &disk.name())?;
        let mut list = Command::new(program("unshare")?);
        list.args(["--mount", "/bin/sh", "-c", script]).arg(&perf);
        list.args(["script", "--ns", "-F", "time,event,trace", "-i"]).arg(&data);
        let text = run(&mut list)?;
        let device = fs::read_to_string(format!("/sys/block/{}/dev", disk.name()))?;
        let device = device.trim().replace(':', ",");
        let (mut issued, mut perfs) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            // 42.123456789: block:block_rq_complete: 7,0 R () 128 + 8 be,0,4 [0]
            let words: Vec<&str> = line.split_whitespace().collect();
            let [time, event, of, rwbs, rest @ ..] = words.as_slice() else { continue };
            if *of != device {
                continue;
            }
            let plus = rest.iter().position(|word| *word == "+").context("no +")?;
            let sector: u64 = rest[plus - 1].parse()?;
            let sectors: u64 = rest[plus + 1].parse()?;
            let (seconds, fraction) = time.trim_end_matches(':').split_once('.').context("time")?;
            let ns = seconds.parse::<u64>()? * 1_000_000_000 + fraction.parse::<u64>()?;
            if event.contains("issue") {
                issued.insert(sector, ns);
            } else {
                let begun = issued.remove(&sector).context("complete without issue")?;
                perfs.push((Traced { sector, rwbs: (*rwbs).to_owned(), sectors }, ns - begun));
            }
        }
        same_as(&events, &disk.name(), perfs)
    });
}

/// blktrace, which ends when it is interrupted: on drop.
struct Tracing(Child);

impl Drop for Tracing {
    fn drop(&mut self) {
        let ended = signal(self.0.id(), Signal::Int).and_then(|()| Ok(self.0.wait()?));
        if let Err(error) = ended {
            eprintln!("leaving blktrace: {error:#}");
        }
    }
}

#[test]
fn blkparse() {
    case("the same requests and times as blkparse shows", || {
        let disk = match spare_virtio_disk() {
            Ok(disk) if in_vm() => disk,
            _ => return Err(cannot("blktrace is for virtual machines: this kernel may refuse it")),
        };
        let name = name_of(&disk);
        let directory = TempDir::new("blktrace")?;
        if !Path::new("/sys/kernel/debug/tracing").exists() {
            run(Command::new(program("mount")?)
                .args(["-t", "debugfs", "debugfs"])
                .arg("/sys/kernel/debug"))?;
        }
        let mut trace = Command::new(program("blktrace")?);
        trace.args(["-a", "issue", "-a", "complete", "-o", "trace", "-d"]).arg(&disk);
        let trace = trace.current_dir(directory.path()).stdout(Stdio::null()).spawn()?;
        let trace = Tracing(trace);
        let enabled = format!("/sys/block/{name}/trace/enable");
        let deadline = Instant::now() + patience(10);
        // Nothing tells that it has begun.
        while fs::read_to_string(&enabled)?.trim() != "1" {
            ensure!(Instant::now() < deadline, "blktrace does not begin");
            thread::sleep(Duration::from_millis(50));
        }
        let mut fio = GatedFio::start(&disk)?;
        let watch = fio.watch()?;
        GatedFio::open(&fio.gate_file)?;
        fio.ended()?;
        let events = fio.settled(watch, &name)?;
        drop(trace);
        let mut parse = Command::new(program("blkparse")?);
        parse.args(["-q", "-i", "trace", "-f", "%a %S %n %d %T %t\\n"]);
        let text = run(parse.current_dir(directory.path()))?;
        let (mut issued, mut theirs) = (BTreeMap::new(), Vec::new());
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [action @ ("D" | "C"), sector, sectors, rwbs, seconds, ns] = words[..] else {
                continue;
            };
            let ns = seconds.parse::<u64>()? * 1_000_000_000 + ns.parse::<u64>()?;
            let (sector, sectors) = (sector.parse()?, sectors.parse()?);
            if action == "D" {
                issued.insert(sector, ns);
            } else if let Some(begun) = issued.remove(&sector) {
                let traced = Traced { sector, rwbs: rwbs.to_owned(), sectors };
                theirs.push((traced, ns - begun));
            }
        }
        same_as(&events, &name, theirs)
    });
}

/// Holds the requests of a disk against those that another program has seen, with their times from D
/// to C in nanoseconds.
fn same_as(events: &[Event], disk: &str, mut theirs: Vec<(Traced, u64)>) -> Result<()> {
    let mut seen = Vec::new();
    for event in of_disk(events, disk) {
        let traced = Traced {
            sector: event.u64("/block/sector")?,
            rwbs: event.str("/block/rwbs")?.to_owned(),
            sectors: event.u64("/block/bytes")? / 512,
        };
        seen.push((traced, event.u64("/block/device_ns")?));
    }
    // The same sector's stay in the order of their ends.
    theirs.sort_by(|a, b| a.0.cmp(&b.0));
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    ensure!(seen.len() > 200, "only {} requests", seen.len());
    equal("requests", seen.len(), theirs.len())?;
    ensure!(seen.iter().map(|one| &one.0).eq(theirs.iter().map(|one| &one.0)), "other requests");
    let mut apart: Vec<u64> = seen.iter().zip(&theirs).map(|(a, b)| a.1.abs_diff(b.1)).collect();
    apart.sort_unstable();
    let (middle, most) = (apart[apart.len() / 2], apart[apart.len() * 99 / 100]);
    println!("  D to C apart: median {middle} ns, 99 % below {most} ns");
    // Each adds what the other takes between two looks at the clock.
    ensure!(middle < if in_vm() { 2_000_000 } else { 50_000 }, "times differ");
    Ok(())
}

#[test]
fn the_file_behind_a_loop_device_is_read_too() {
    case("a file is read from a disk: who asked and how much", || {
        let disk = Loop::new(32 * MIB)?;
        let mounted = Mounted::ext4(disk.device())?;
        let path = mounted.path().join("file");
        fs::write(&path, vec![1; MIB as usize])?;
        let file = File::open(&path)?;
        file.sync_all()?;
        // Out of the page cache.
        // SAFETY: the descriptor is open.
        let refused = unsafe {
            libc::posix_fadvise(
                std::os::fd::AsRawFd::as_raw_fd(&file),
                0,
                0,
                libc::POSIX_FADV_DONTNEED,
            )
        };
        ensure!(refused == 0, "posix_fadvise: {refused}");
        let watch = watch_all()?;
        let mut file = file;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        equal("read", bytes.len() as u64, MIB)?;
        let ended = settled(watch)?;
        let name = disk.name();
        let own = of_disk(&ended.events, &name).filter(|event| {
            event.str("/block/op").is_ok_and(|op| op == "read")
                && event
                    .u64("/block/submitter/pid")
                    .is_ok_and(|pid| pid == u64::from(std::process::id()))
        });
        let bytes: u64 = own.map(|event| event.u64("/block/bytes")).sum::<Result<u64>>()?;
        equal("bytes of read-ahead and reads", bytes, MIB)
    });
}
