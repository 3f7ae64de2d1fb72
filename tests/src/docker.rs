//! A docker daemon of the tests' own, with directories of its own.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::case::chain;
use crate::cleanup::at_exit;
use crate::engine::Engine;
use crate::facts::{in_vm, patience, program};
use crate::names::unique;
use crate::process::{Signal, pidfd, readable, signal};

/// Runs the daemon until standard input closes, which it does when the tests end, however they
/// end; a line says that the daemon was killed and is to be started again. `$1` is the directory,
/// the rest the daemon's command.
const SUPERVISOR: &str = r#"
directory=$1; shift
echo $$ >"$directory/supervisor"
exec 3>&2 2>/dev/null
"$@" </dev/null 2>&3 & daemon=$!
while read -r _; do
    wait "$daemon"
    "$@" </dev/null 2>&3 & daemon=$!
done
kill "$daemon"; wait "$daemon"
rm -rf --one-file-system "$directory"
"#;

/// Where dockerd notes its own containerd, below the tests' directory.
const CONTAINERD_PID: &str = "exec/containerd/containerd.pid";

/// A running daemon; it and its directories go on drop.
#[derive(Debug)]
pub struct Daemon {
    supervisor: Child,
    directory: PathBuf,
    log: Mutex<mpsc::Receiver<String>>,
}

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
            let started = Daemon::start_by(&dockerd, &docker, &[])
                // dockerd gives containerd 15 s, which an emulated machine may not keep the first
                // time, when nothing is in memory.
                .or_else(|error| {
                    if in_vm() { Daemon::start_by(&dockerd, &docker, &[]) } else { Err(error) }
                });
            let (daemon, engine) = started.map_err(|error| chain(&error))?;
            at_exit(move || drop(daemon));
            Ok(engine)
        })
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

impl Daemon {
    /// Starts one for a test alone, with more options.
    pub fn start(options: &[&str]) -> Result<(Self, Engine)> {
        let dockerd = program("dockerd")?;
        let docker = program("docker")?;
        program("containerd")?;
        program("runc")?;
        Daemon::start_by(&dockerd, &docker, options)
    }

    fn start_by(dockerd: &Path, docker: &Path, options: &[&str]) -> Result<(Self, Engine)> {
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
        supervisor.args(["--ip-forward=false", "--ip-masq=false"]).args(options);
        if Path::new("/run/containerd/containerd.sock").exists() {
            // The daemon uses the host's containerd then: keep out of the host's own docker.
            supervisor.args(["--containerd-namespace", "ctrace-test"]);
            supervisor.args(["--containerd-plugins-namespace", "ctrace-test-plugins"]);
        }
        // A signal to the tests' process group must not end it before the daemon.
        supervisor.process_group(0);
        supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut supervisor = supervisor.spawn().context("starting dockerd's supervisor")?;
        let log = Mutex::new(read_log(&mut supervisor)?);
        let daemon = Daemon { supervisor, directory, log };
        daemon.wait_listening()?;
        println!("dockerd: listening after {:?}", began.elapsed());
        let options = vec!["--host".to_owned(), socket];
        let engine = Engine::new("docker", docker.to_owned(), options).with_image()?;
        Ok((daemon, engine))
    }

    /// The processes of the daemon: dockerd and, unless it is the host's, its containerd.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for file in ["pid", CONTAINERD_PID] {
            match fs::read_to_string(self.directory.join(file)) {
                Ok(pid) => pids.push(pid.trim().parse()?),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(file),
            }
        }
        Ok(pids)
    }

    /// Kills the daemon and its containerd; their containers go on.
    pub fn kill(&mut self) -> Result<Killed<'_>> {
        let pids = self.pids()?;
        for pid in &pids {
            signal(*pid, Signal::Kill)?;
        }
        for handle in pids.iter().filter_map(|pid| pidfd(*pid).ok()) {
            ensure!(readable(handle, patience(10))?, "a daemon does not die of SIGKILL");
        }
        Ok(Killed { daemon: self })
    }

    /// Waits until it takes calls.
    fn wait_listening(&self) -> Result<()> {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + patience(30);
        let mut log = Vec::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("API listen on") => return Ok(()),
                Ok(line) if line.contains("failed to start daemon") => {
                    log.push(line);
                    bail!("dockerd failed:\n{}", log.join("\n"));
                }
                Ok(line) => log.push(line),
                Err(_) => bail!("dockerd hangs:\n{}", log.join("\n")),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // The supervisor ends by itself; what it could not stop, the next sweep reports.
        let _ = self.supervisor.wait();
    }
}

/// A daemon that was killed; started again when this is dropped, so that it removes its containers.
#[derive(Debug)]
pub struct Killed<'a> {
    daemon: &'a mut Daemon,
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        // What adopts the dead containerd may never wait for it; its pid is taken then.
        let _ = fs::remove_file(self.daemon.directory.join(CONTAINERD_PID));
        let told = self.daemon.supervisor.stdin.as_mut().map(|stdin| stdin.write_all(b"again\n"));
        match told {
            Some(Ok(())) => {
                if let Err(error) = self.daemon.wait_listening() {
                    eprintln!("leaving a killed dockerd's containers: {error:#}");
                }
            }
            other => eprintln!("leaving a killed dockerd's containers: {other:?}"),
        }
    }
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
fn read_log(supervisor: &mut Child) -> Result<mpsc::Receiver<String>> {
    let stderr = supervisor.stderr.take().context("stderr is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Nobody listens any more once the test has ended.
            let _ = sender.send(line);
        }
    });
    Ok(lines)
}
