//! Block devices of the tests' own, what the kernel counts for them, and fio.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::cannot;
use crate::command::run;
use crate::event::Event;
use crate::facts::program;
use crate::names::{TempDir, is_leftover, unique};

/// A file as a block device; detached and removed on drop.
#[derive(Debug)]
pub struct Loop {
    device: PathBuf,
    file: PathBuf,
    _directory: TempDir,
}

impl Loop {
    pub fn new(bytes: u64) -> Result<Self> {
        let directory = TempDir::new("loop")?;
        Loop::on(directory.path().join("disk"), bytes, directory)
    }

    /// Its file lies in a directory of another one's file system.
    pub fn inside(parent: &Path, bytes: u64) -> Result<Self> {
        Loop::on(parent.join(unique("disk")), bytes, TempDir::new("loop")?)
    }

    fn on(file: PathBuf, bytes: u64, directory: TempDir) -> Result<Self> {
        // Built as a module in some kernels.
        if !Path::new("/dev/loop-control").exists() {
            run(Command::new(program("modprobe")?).arg("loop"))
                .map_err(|_| cannot("no loop devices"))?;
        }
        // Written, not only extended: the first read or write of a hole is another thing.
        fs::write(&file, vec![0x5a; usize::try_from(bytes)?])?;
        let mut attach = Command::new(program("losetup")?);
        let device = run(attach.args(["--find", "--show"]).arg(&file))?;
        println!("  {} is {device}", file.display());
        Ok(Loop { device: PathBuf::from(device), file, _directory: directory })
    }

    pub fn device(&self) -> &Path {
        &self.device
    }

    /// `loop0`
    pub fn name(&self) -> String {
        name_of(&self.device)
    }

    /// The file behind it.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = program("losetup")
            .and_then(|losetup| run(Command::new(losetup).arg("--detach").arg(&self.device)));
        if let Err(error) = detached {
            eprintln!("leaving {}: {error:#}", self.device.display());
        }
    }
}

/// Detaches what ended runs left.
pub fn sweep() -> Result<()> {
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let backing = Path::new("/sys/block").join(&name).join("loop/backing_file");
        let Ok(file) = fs::read_to_string(backing) else { continue };
        let is_ours =
            Path::new(file.trim_end()).iter().any(|part| is_leftover(&part.to_string_lossy()));
        if is_ours {
            run(Command::new(program("losetup")?)
                .arg("--detach")
                .arg(Path::new("/dev").join(name)))?;
        }
    }
    Ok(())
}

/// The last part of a device's path.
pub fn name_of(device: &Path) -> String {
    device.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What the kernel has counted for a disk: `Documentation/block/stat.rst`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub flushes: u64,
}

impl Counted {
    pub fn of(disk: &str) -> Result<Self> {
        let text = fs::read_to_string(format!("/sys/block/{disk}/stat"))?;
        let numbers: Vec<u64> =
            text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [reads, _, read_sectors, _, writes, _, written_sectors, ..] = numbers[..] else {
            anyhow::bail!("too few numbers: {text}");
        };
        let flushes = *numbers.get(15).context("no flushes")?;
        let (read_bytes, written_bytes) = (read_sectors * 512, written_sectors * 512);
        Ok(Counted { reads, read_bytes, writes, written_bytes, flushes })
    }

    /// How many of all kinds.
    pub fn all(self) -> u64 {
        self.reads + self.writes + self.flushes
    }

    /// Since an earlier time.
    pub fn since(self, before: Self) -> Self {
        Counted {
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            writes: self.writes - before.writes,
            written_bytes: self.written_bytes - before.written_bytes,
            flushes: self.flushes - before.flushes,
        }
    }

    /// The same of ctrace's events.
    pub fn of_events(events: &[Event], disk: &str) -> Result<Self> {
        let mut by_op: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for event in of_disk(events, disk) {
            let (count, bytes) = by_op.entry(event.str("/block/op")?).or_default();
            *count += 1;
            *bytes += event.u64("/block/bytes")?;
        }
        let of = |op| by_op.get(op).copied().unwrap_or_default();
        let ((reads, read_bytes), (writes, written_bytes)) = (of("read"), of("write"));
        Ok(Counted { reads, read_bytes, writes, written_bytes, flushes: of("flush").0 })
    }
}

/// The I/O of a disk.
pub fn of_disk<'a>(events: &'a [Event], disk: &'a str) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(move |event| {
        event.is("block") && event.get("/block/disk").and_then(Value::as_str) == Some(disk)
    })
}

/// What fio says that it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Done {
    pub ios: u64,
    pub bytes: u64,
    /// Mean of the time from its submission on, nanoseconds.
    pub mean_ns: f64,
}

/// Runs fio against a device, directly; gives what it read and wrote.
pub fn fio(device: &Path, options: &[&str]) -> Result<(Done, Done)> {
    let mut command = Command::new(program("fio")?);
    command.arg("--name=ctrace-test").arg(format!("--filename={}", device.display()));
    command.args(["--output-format=json", "--direct=1", "--bs=4k"]).args(options);
    let text = run(&mut command)?;
    // It may say something before.
    let json: Value = serde_json::from_str(&text[text.find('{').context("no JSON of fio")?..])?;
    let job = &json["jobs"][0];
    ensure!(job["error"] == 0, "fio failed: {text}");
    let done = |way: &str| -> Result<Done> {
        let of = &job[way];
        Ok(Done {
            ios: of["total_ios"].as_u64().context("no total_ios")?,
            bytes: of["io_bytes"].as_u64().context("no io_bytes")?,
            mean_ns: of["lat_ns"]["mean"].as_f64().context("no lat_ns")?,
        })
    };
    Ok((done("read")?, done("write")?))
}

/// A file system that is mounted; unmounted on drop.
#[derive(Debug)]
pub struct Mounted {
    directory: TempDir,
}

impl Mounted {
    /// Makes an ext4 on the device.
    pub fn ext4(device: &Path) -> Result<Self> {
        run(Command::new(program("mkfs.ext4")?).args(["-q", "-F"]).arg(device))?;
        let directory = TempDir::new("mounted")?;
        run(Command::new(program("mount")?)
            .args(["-t", "ext4"])
            .arg(device)
            .arg(directory.path()))?;
        Ok(Mounted { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Holds back what is written until the answer is dropped.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        run(Command::new(program("fsfreeze")?).arg("--freeze").arg(self.path()))?;
        Ok(Frozen(self))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = program("umount")
            .and_then(|umount| run(Command::new(umount).arg(self.directory.path())));
        if let Err(error) = unmounted {
            eprintln!("leaving {}: {error:#}", self.directory.path().display());
        }
    }
}

/// A file system that is frozen.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Mounted);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = program("fsfreeze")
            .and_then(|program| run(Command::new(program).arg("--unfreeze").arg(self.0.path())));
        if let Err(error) = thawed {
            eprintln!("leaving {} frozen: {error:#}", self.0.path().display());
        }
    }
}

/// A compressed disk in memory, which has no requests; removed on drop.
#[derive(Debug)]
pub struct Zram {
    number: u32,
}

impl Zram {
    pub fn new(bytes: u64) -> Result<Self> {
        const ADD: &str = "/sys/class/zram-control/hot_add";
        if !Path::new(ADD).exists() {
            let loaded = program("modprobe")
                .and_then(|modprobe| run(Command::new(modprobe).args(["zram", "num_devices=0"])));
            loaded.map_err(|_| cannot("this kernel has no zram"))?;
        }
        let zram = Zram { number: fs::read_to_string(ADD)?.trim().parse()? };
        fs::write(format!("/sys/block/{}/disksize", zram.name()), bytes.to_string())?;
        Ok(zram)
    }

    /// `zram1`
    pub fn name(&self) -> String {
        format!("zram{}", self.number)
    }

    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(self.name())
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        let removed = fs::write(format!("/sys/block/{}/reset", self.name()), "1").and_then(|()| {
            fs::write("/sys/class/zram-control/hot_remove", self.number.to_string())
        });
        if let Err(error) = removed {
            eprintln!("leaving {}: {error}", self.name());
        }
    }
}

/// A table of device mapper; removed on drop.
#[derive(Debug)]
pub struct Mapped {
    name: String,
}

impl Mapped {
    /// `table`: as dmsetup(8) takes it.
    pub fn new(table: &str) -> Result<Self> {
        let dmsetup = program("dmsetup")?;
        if run(Command::new(&dmsetup).arg("version")).is_err() {
            let modprobe = program("modprobe")?;
            run(Command::new(modprobe).args(["-a", "dm-mod", "dm-delay"]))
                .map_err(|_| cannot("this kernel has no device mapper"))?;
        }
        let name = unique("dm");
        run(Command::new(dmsetup).args(["create", &name, "--noudevsync", "--table", table]))
            .with_context(|| format!("dmsetup create {table}"))?;
        Ok(Mapped { name })
    }

    /// `dm-0`
    pub fn disk(&self) -> Result<String> {
        let dmsetup = program("dmsetup")?;
        let out = run(Command::new(dmsetup).args([
            "info",
            "-c",
            "--noheadings",
            "-o",
            "blkdevname",
            &self.name,
        ]))?;
        Ok(out)
    }

    pub fn device(&self) -> Result<PathBuf> {
        Ok(Path::new("/dev").join(self.disk()?))
    }

    /// Holds all I/O back until the answer is dropped.
    pub fn suspend(&self) -> Result<Suspended<'_>> {
        let mut command = Command::new(program("dmsetup")?);
        run(command.args(["suspend", "--noflush", "--nolockfs", "--noudevsync", &self.name]))?;
        Ok(Suspended(self))
    }
}

/// A table whose I/O is held back; resumed on drop.
#[derive(Debug)]
pub struct Suspended<'a>(&'a Mapped);

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        let resumed = program("dmsetup").and_then(|dmsetup| {
            run(Command::new(dmsetup).args(["resume", "--noudevsync", &self.0.name]))
        });
        if let Err(error) = resumed {
            eprintln!("{} stays suspended: {error:#}", self.0.name);
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let removed = program("dmsetup").and_then(|dmsetup| {
            run(Command::new(dmsetup).args(["remove", "--noudevsync", "--retry", &self.name]))
        });
        if let Err(error) = removed {
            eprintln!("leaving {}: {error:#}", self.name);
        }
    }
}

/// A virtio disk that the virtual machine has for tests: unused, and not its root.
pub fn spare_virtio_disk() -> Result<PathBuf> {
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let size = fs::read_to_string(Path::new("/sys/block").join(&name).join("size"))?;
        let is_spare = name.to_string_lossy().starts_with("vd") && size.trim() == SPARE_SECTORS;
        let device = Path::new("/dev").join(&name);
        if is_spare && File::open(&device).is_ok() {
            return Ok(device);
        }
    }
    Err(cannot("there is no spare virtio disk"))
}

/// As xtask makes it: 64 MiB in sectors of 512 bytes.
const SPARE_SECTORS: &str = "131072";
