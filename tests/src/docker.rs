//! A docker daemon of the tests' own, with directories of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::case::chain;
use crate::cleanup::at_exit;
use crate::engine::Engine;
use crate::facts::{in_vm, patience, program};
use crate::names::unique;
use crate::process::{pidfd, readable};

/// Runs the daemon until standard input closes, which it does when the tests end, however they
/// end. `$1` is the directory, the rest the daemon's command.
const SUPERVISOR: &str = r#"
directory=$1; shift
echo $$ >"$directory/supervisor"
"$@" </dev/null & daemon=$!
exec 2>/dev/null
read -r _
kill "$daemon"; wait "$daemon"
rm -rf --one-file-system "$directory"
"#;

/// The daemon, started by the first test that needs it.
pub fn shared() -> Result<&'static Engine> {
    static SHARED: OnceLock<Result<Engine, String>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    // Programs that are missing skip the test each time; a daemon that fails is tried once.
    let dockerd = program("dockerd")?;
    let docker = program("docker")?;
    program("containerd")?;
    program("runc")?;
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    SHARED
        .get_or_init(|| {
            start(&dockerd, &docker)
                // dockerd gives containerd 15 s, which an emulated machine may not keep the first
                // time, when nothing is in memory.
                .or_else(|error| if in_vm() { start(&dockerd, &docker) } else { Err(error) })
                .map_err(|error| chain(&error))
        })
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

fn start(dockerd: &Path, docker: &Path) -> Result<Engine> {
    let directory = std::env::temp_dir().join(unique("docker"));
    fs::create_dir(&directory)?;
    let below = |name: &str| directory.join(name).display().to_string();
    // The host's own configuration must not reach this daemon.
    fs::write(directory.join("daemon.json"), "{}")?;
    let socket = format!("unix://{}", below("socket"));
    let began = Instant::now();
    let mut supervisor = Command::new("/bin/sh");
    supervisor.args(["-c", SUPERVISOR, "supervisor"]).arg(&directory).arg(dockerd);
    supervisor.args(["--config-file", &below("daemon.json"), "--host", &socket]);
    supervisor.args(["--data-root", &below("data"), "--exec-root", &below("exec")]);
    supervisor.args(["--pidfile", &below("pid"), "--bridge=none", "--iptables=false"]);
    supervisor.args(["--ip-forward=false", "--ip-masq=false"]);
    if Path::new("/run/containerd/containerd.sock").exists() {
        // The daemon uses the host's containerd then: keep out of the host's own docker.
        supervisor.args(["--containerd-namespace", "ctrace-test"]);
        supervisor.args(["--containerd-plugins-namespace", "ctrace-test-plugins"]);
    }
    // A signal to the tests' process group must not end it before the daemon.
    supervisor.process_group(0);
    supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = supervisor.spawn().context("starting dockerd's supervisor")?;
    let listening = wait_listening(&mut child);
    at_exit(move || {
        drop(child.stdin.take());
        // The supervisor ends by itself; what it could not stop, the next sweep reports.
        let _ = child.wait();
    });
    listening?;
    println!("dockerd: listening after {:?}", began.elapsed());
    Engine::new("docker", docker.to_owned(), vec!["--host".to_owned(), socket]).with_image()
}

/// Waits until the supervisor of an ended run has stopped its daemon and removed everything.
pub fn wait_stopped(directory: &Path) -> Result<()> {
    let Ok(pid) = fs::read_to_string(directory.join("supervisor")) else { return Ok(()) };
    let pid = pid.trim().parse()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_it = String::from_utf8_lossy(&command).contains(&directory.display().to_string());
    if is_it && let Ok(supervisor) = pidfd(pid) {
        let ended = readable(supervisor, patience(30))?;
        ensure!(ended, "dockerd of an ended run does not stop (its supervisor is {pid})");
    }
    Ok(())
}

/// Reads the daemon's log, which goes on being read so that the pipe never fills.
fn wait_listening(child: &mut Child) -> Result<()> {
    let stderr = child.stderr.take().context("stderr is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Nobody listens any more once the daemon is up.
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + patience(30);
    let mut log = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("API listen on") => return Ok(()),
            Ok(line) => log.push(line),
            // The log ends with the daemon.
            Err(RecvTimeoutError::Disconnected) => bail!("dockerd failed:\n{}", log.join("\n")),
            Err(RecvTimeoutError::Timeout) => bail!("dockerd hangs:\n{}", log.join("\n")),
        }
    }
}
