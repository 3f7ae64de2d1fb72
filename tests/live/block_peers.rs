//! Block I/O as other programs see the same run: perf and blktrace.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ctrace_tests::block::{Loop, name_of, of_disk, spare_virtio_disk};
use ctrace_tests::case::{cannot, case};
use ctrace_tests::command::{finish, run};
use ctrace_tests::event::Event;
use ctrace_tests::facts::{in_vm, patience, program};
use ctrace_tests::names::TempDir;
use ctrace_tests::oom_check::equal;
use ctrace_tests::process::{Signal, signal};
use ctrace_tests::watch::Watch;

use super::MIB;

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
        let script = "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs \
                      /sys/kernel/tracing || exit 77; exec \"$0\" \"$@\"";
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
        // Nothing tells that it has begun; before, old kernels have nothing to read there.
        while !fs::read_to_string(&enabled).is_ok_and(|text| text.trim() == "1") {
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
