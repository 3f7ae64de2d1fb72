//! One boot: a kernel, a command in it, its output and exit code.

use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::store::Kernel;
use crate::{setup::python, workspace};

/// Prepares the guest; virtme-ng runs it after its own init.
const GUEST_SCRIPT: &str = include_str!("guest.sh");

const DEFAULT_MEMORY: &str = "3G";
const DEFAULT_CPUS: u32 = 2;
/// Two nodes, for the tests of cpusets and memory policies.
const DEFAULT_NUMA: [&str; 2] = ["2G,cpus=0", "1G,cpus=1"];
const DEFAULT_TIMEOUT: u64 = 45;
/// A disk that tests may write to; each guest's is its own. The tests know it by its size.
const SPARE_DISK_BYTES: u64 = 64 << 20;
/// Lines of a dead guest's console that are shown; a kernel's last words take about sixty.
const LAST_LINES: usize = 100;

/// The virtual machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Machine {
    /// Memory, for example 3G.
    #[arg(long, default_value = DEFAULT_MEMORY)]
    memory: String,
    #[arg(long, default_value_t = DEFAULT_CPUS)]
    cpus: u32,
    /// A NUMA node (repeatable; the sizes add up to the memory), for example 2G,cpus=0. Without it
    /// a machine of the default size has two.
    #[arg(long, value_name = "MEMORY[,cpus=FIRST-LAST]")]
    numa: Vec<String>,
    /// Use the processor's virtualization; without it QEMU emulates, which works everywhere.
    #[arg(long)]
    kvm: bool,
    /// End a guest that runs longer.
    #[arg(long, value_name = "MINUTES", default_value_t = DEFAULT_TIMEOUT)]
    timeout: u64,
    /// Show the guest's console on stderr; without it only its end, and only of a guest that died.
    #[arg(long)]
    console: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY.to_owned(),
            cpus: DEFAULT_CPUS,
            numa: Vec::new(),
            kvm: false,
            timeout: DEFAULT_TIMEOUT,
            console: false,
        }
    }
}

impl Machine {
    fn nodes(&self) -> Vec<&str> {
        let is_default = self.memory == DEFAULT_MEMORY && self.cpus == DEFAULT_CPUS;
        match self.numa.is_empty() && is_default {
            true => DEFAULT_NUMA.to_vec(),
            false => self.numa.iter().map(String::as_str).collect(),
        }
    }
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The command's exit code.
    Code(i32),
    TimedOut(Duration),
    /// The guest died before the command ended: a kernel panic, or QEMU failed.
    Died,
}

impl Ending {
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::TimedOut(_) => 124,
            Self::Died => 125,
        }
    }

    fn from_vng(code: Option<i32>, timeout: Duration) -> Self {
        match code {
            // timeout(1) ended it, the second time by force.
            Some(124 | 137) => Self::TimedOut(timeout),
            Some(255) | None => Self::Died,
            Some(code) => Self::Code(code),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(0) => write!(formatter, "ok"),
            Self::Code(code) => write!(formatter, "failed with exit code {code}"),
            Self::TimedOut(limit) => {
                write!(formatter, "did not end in {} minutes", limit.as_secs() / 60)
            }
            Self::Died => write!(formatter, "the guest died"),
        }
    }
}

/// Boots a kernel with this host's root file system, read-only under a layer in memory, and runs
/// a shell command in it. What it prints goes to `out`.
pub fn boot(
    kernel: &Kernel,
    machine: &Machine,
    command: &str,
    out: &mut dyn Write,
) -> Result<Ending> {
    // A kernel's command line, which the command would be on, is too short for a list of tests.
    let mut files = tempfile::Builder::new();
    let files = files.prefix("guest-").tempdir_in(workspace::cache_dir()?)?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.path().join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(quote(&path.to_string_lossy()))
    };
    let script = write("guest.sh", GUEST_SCRIPT)?;
    let script = format!("sh {script} {}", quote(&format!("sh {}", write("command.sh", command)?)));
    let timeout = Duration::from_secs(machine.timeout * 60);
    let mut child = launcher(kernel, machine, &script, timeout)?
        .stdin(Stdio::null())
        // QEMU truncates what it is given to write to, so it is never given a file.
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start vng")?;
    let stdout = child.stdout.take().context("no stdout")?;
    let stderr = child.stderr.take().context("no stderr")?;
    let is_shown = machine.console;
    let console = thread::spawn(move || read_console(stderr, is_shown));
    each_line(stdout, |line| out.write_all(line).and_then(|()| out.flush()))?;
    let status = child.wait()?;
    let last_lines =
        console.join().map_err(|_| anyhow::anyhow!("reading the console failed"))??;
    let ending = Ending::from_vng(status.code(), timeout);
    if ending == Ending::Died {
        eprintln!("\n{}", last_lines.join("\n"));
    }
    Ok(ending)
}

/// The console's last lines, or none if all of them were shown.
fn read_console(from: impl Read, is_shown: bool) -> io::Result<Vec<String>> {
    let mut last = VecDeque::new();
    each_line(from, |line| {
        if is_shown {
            return io::stderr().write_all(line);
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
        Ok(())
    })?;
    Ok(last.into())
}

fn launcher(
    kernel: &Kernel,
    machine: &Machine,
    script: &str,
    timeout: Duration,
) -> Result<Command> {
    let vng = python::vng().context("vng is missing")?;
    // The guest ends with this process, and with its whole process group after the time-out.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout", "--kill-after=10"]);
    command.env("PATH", python::search_path(&vng)?);
    command.arg(timeout.as_secs().to_string()).arg(vng);
    command.arg("--run").arg(&kernel.image);
    // Debian's virtiofsd is too old in some releases; 9p works with all of them.
    command.args(["--force-9p", "--user", "root", "--cwd", "/"]);
    command.args(["--memory", &machine.memory, "--cpus", &machine.cpus.to_string()]);
    // With AppArmor, container engines ask for its parser, which hosts without it do not have.
    command.args(["--append", "apparmor=0"]);
    for node in machine.nodes() {
        command.args(["--numa", node]);
    }
    // What is written goes with the guest, so that guests can run at the same time.
    let disk = workspace::cache_dir()?.join("spare-disk");
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(&disk);
    file.and_then(|file| file.set_len(SPARE_DISK_BYTES))
        .with_context(|| disk.display().to_string())?;
    let disk = quote(&disk.to_string_lossy());
    command.arg(format!("--qemu-opts=-drive if=virtio,format=raw,snapshot=on,file={disk}"));
    // That /dev/kvm is there does not mean that it works: it often does not in a nested machine.
    if !machine.kvm {
        command.arg("--disable-kvm");
        // With a thread for each processor, the emulator may run an instruction that another
        // processor has just replaced: kernels that patch themselves (static keys, tracepoints)
        // then die with "Oops: int3".
        command.arg("--qemu-opts=-accel tcg,thread=single");
    }
    command.args(["--verbose", "--exec", script]);
    Ok(command)
}

fn each_line(from: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        take(&line)?;
        line.clear();
    }
    Ok(())
}

/// One word for a shell.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_survive_a_shell() {
        for word in ["", "a b", "it's", "$HOME `id` \"x\"", "a\nb", "\\"] {
            let output = Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn endings_keep_the_commands_code() {
        let limit = Duration::from_secs(60);
        let cases = [
            (Some(0), Ending::Code(0)),
            (Some(101), Ending::Code(101)),
            (Some(124), Ending::TimedOut(limit)),
            (Some(255), Ending::Died),
            (None, Ending::Died),
        ];
        for (code, expected) in cases {
            assert_eq!(Ending::from_vng(code, limit), expected, "{code:?}");
        }
    }
}
