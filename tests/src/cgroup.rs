//! Memory cgroups without a container, on v1 or v2.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::case::cannot;
use crate::facts::{CgroupVersion, cgroup_mounts, controller, lists, memory_controller, patience};
use crate::names::{leftovers_in, unique};
use crate::process::{Signal, signal};

/// A cgroup; its processes are killed and it is removed on drop.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    mount: PathBuf,
    version: CgroupVersion,
}

/// What the kernel counts for a memory cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Processes killed: `memory.events` of v2, `memory.oom_control` of v1.
    pub oom_kill: u64,
    /// Times the OOM killer was called: v2 only.
    pub oom: Option<u64>,
    /// Times the limit was hit: `max` of v2's `memory.events`, `memory.failcnt` of v1.
    pub hits: u64,
}

impl Cgroup {
    /// Makes one below the root of the hierarchy.
    pub fn new(what: &str) -> Result<Self> {
        Cgroup::named(OsStr::new(&unique(what)))
    }

    /// Makes one below the root of the hierarchy; the name comes from [`unique`] but may end in
    /// anything.
    pub fn named(name: &OsStr) -> Result<Self> {
        let controller = memory_controller()?;
        if controller.version == CgroupVersion::V2 {
            enable_memory_below(&controller.mount)?;
        }
        let directory = controller.mount.join(name);
        Cgroup::make(directory, controller.mount, controller.version)
    }

    /// Makes one in the hierarchy that is mounted there, which need not be the memory controller's.
    pub fn in_hierarchy(mount: &Path, name: &str) -> Result<Self> {
        let version = memory_controller()?.version;
        Cgroup::make(mount.join(name.trim_start_matches('/')), mount.to_owned(), version)
    }

    /// Makes one below the root of the hierarchy of a controller, whatever its version.
    pub fn of_controller(name: &str, what: &str) -> Result<Self> {
        let (version, mount) = controller(name)?;
        if version == CgroupVersion::V2 {
            enable_below(&mount, name)?;
        }
        Cgroup::make(mount.join(unique(what)), mount, version)
    }

    /// Makes one below this one, which then can hold no process of its own on v2.
    pub fn child(&self, name: &str) -> Result<Self> {
        if self.version == CgroupVersion::V2 {
            enable_memory_below(&self.directory)?;
        }
        Cgroup::make(self.directory.join(name), self.mount.clone(), self.version)
    }

    fn make(directory: PathBuf, mount: PathBuf, version: CgroupVersion) -> Result<Self> {
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Cgroup { directory, mount, version })
    }

    /// Limits memory, and allows no swap.
    pub fn limit(self, bytes: u64) -> Result<Self> {
        let (memory, swap, swap_limit) = match self.version {
            CgroupVersion::V1 => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", bytes),
            CgroupVersion::V2 => ("memory.max", "memory.swap.max", 0),
        };
        self.set(memory, &bytes.to_string())?;
        if self.directory.join(swap).exists() {
            self.set(swap, &swap_limit.to_string())?;
        }
        Ok(self)
    }

    /// Has the kernel kill every process of the cgroup at once: v2 only.
    pub fn kill_as_group(self) -> Result<Self> {
        if self.version == CgroupVersion::V1 {
            return Err(cannot("memory.oom.group is of cgroup v2"));
        }
        self.set("memory.oom.group", "1")?;
        Ok(self)
    }

    /// Kills every process by `cgroup.kill`: v2 of 5.14 and later.
    pub fn kill(&self) -> Result<()> {
        self.set("cgroup.kill", "1")
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Reads one of its files.
    pub fn get(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// A command that is run in it.
    pub fn enter(&self, command: &Command) -> Command {
        let mut entering = Command::new("/bin/sh");
        entering.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]);
        entering.arg(self.directory.join("cgroup.procs"));
        entering.arg(command.get_program()).args(command.get_args());
        entering.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        entering
    }

    /// Takes in a process.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    /// Whether the kernel has this file.
    pub fn has(&self, file: &str) -> bool {
        self.directory.join(file).exists()
    }

    /// The file that takes in processes.
    pub fn procs(&self) -> Result<File> {
        let path = self.directory.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&path);
        file.with_context(|| format!("opening {}", path.display()))
    }

    /// Its path in the hierarchy, as /proc/PID/cgroup shows it.
    pub fn path(&self) -> OsString {
        let below = self.directory.strip_prefix(&self.mount).expect("made below the mount");
        Path::new("/").join(below).into_os_string()
    }

    /// [`Cgroup::path`] of one whose name is plain text.
    pub fn path_text(&self) -> String {
        self.path().to_string_lossy().into_owned()
    }

    /// Its id: the inode number of its directory.
    pub fn id(&self) -> Result<u64> {
        Ok(fs::metadata(&self.directory)?.ino())
    }

    /// What the kernel counts for it.
    pub fn counters(&self) -> Result<Counters> {
        counters(&self.directory)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.directory.exists() {
            // A runtime has removed it with its own that is above.
            return;
        }
        if let Err(error) = remove(&self.directory) {
            eprintln!("leaving {}: {error:#}", self.directory.display());
        }
    }
}

/// Cgroups of one name in every hierarchy, which a runtime makes; removed on drop.
#[derive(Debug)]
pub struct Everywhere {
    pub name: String,
}

impl Everywhere {
    pub fn new(what: &str) -> Self {
        Everywhere { name: unique(what) }
    }
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        for mount in cgroup_mounts().unwrap_or_default() {
            let directory = mount.join(&self.name);
            if directory.exists()
                && let Err(error) = remove(&directory)
            {
                eprintln!("leaving {}: {error:#}", directory.display());
            }
        }
    }
}

/// Reads the counters of a memory cgroup, whoever made it.
pub fn counters(directory: &Path) -> Result<Counters> {
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    };
    let field = |text: &str, name: &str| -> Result<u64> {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(found.with_context(|| format!("no {name} in {text}"))?.parse()?)
    };
    match memory_controller()?.version {
        CgroupVersion::V1 => Ok(Counters {
            oom_kill: field(&read("memory.oom_control")?, "oom_kill")?,
            oom: None,
            hits: read("memory.failcnt")?.trim().parse()?,
        }),
        CgroupVersion::V2 => {
            let events = read("memory.events")?;
            Ok(Counters {
                oom_kill: field(&events, "oom_kill")?,
                oom: Some(field(&events, "oom")?),
                hits: field(&events, "max")?,
            })
        }
    }
}

/// Removes what ended runs left.
pub fn sweep(mount: &Path) -> Result<()> {
    for name in leftovers_in(mount) {
        remove(&mount.join(&name))
            .with_context(|| format!("sweeping {}", mount.join(&name).display()))?;
    }
    Ok(())
}

fn enable_memory_below(directory: &Path) -> Result<()> {
    enable_below(directory, "memory")
}

/// Gives the cgroups below a directory of v2 a controller.
fn enable_below(directory: &Path, controller: &str) -> Result<()> {
    let control = directory.join("cgroup.subtree_control");
    if lists(&control, controller)? {
        return Ok(());
    }
    let enable = format!("+{controller}");
    fs::write(&control, &enable).with_context(|| format!("{enable} in {}", control.display()))
}

/// Kills what is inside and removes the cgroup with those below it.
fn remove(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    let deadline = Instant::now() + patience(10);
    loop {
        match fs::remove_dir(directory) {
            // Busy until the last process has left, which neither version signals when the last
            // reference goes: try again.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                for pid in fs::read_to_string(directory.join("cgroup.procs"))?.lines() {
                    kill_member(pid.parse()?)?;
                }
                thread::yield_now();
            }
            Err(error) => bail!("rmdir: {error}"),
            Ok(()) => return Ok(()),
        }
    }
}

/// Kills a process of a cgroup that the tests made; it may be gone already.
fn kill_member(pid: u32) -> Result<()> {
    match signal(pid, Signal::Kill) {
        Err(error) if !is_no_such_process(&error) => Err(error),
        _ => Ok(()),
    }
}

fn is_no_such_process(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}
