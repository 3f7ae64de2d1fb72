//! Containers of an engine with docker's command line: docker itself and podman.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::{Finished, finish, run};
use crate::gate::Gate;
use crate::image::Image;
use crate::names::{TempDir, unique};

/// An engine's command with the options that every call has.
#[derive(Clone, Debug)]
pub struct Engine {
    /// As events name it.
    pub runtime: &'static str,
    program: PathBuf,
    options: Vec<String>,
    container: Vec<String>,
    directory: PathBuf,
}

impl Engine {
    pub fn new(runtime: &'static str, program: PathBuf, options: Vec<String>) -> Self {
        // Their shells would ignore SIGTERM for ten seconds.
        let container = ["--network=none", "--stop-signal=SIGKILL"].map(str::to_owned).to_vec();
        Engine { runtime, program, options, container, directory: PathBuf::from("/") }
    }

    /// An option of every call.
    pub fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// An option that every container gets.
    pub fn with_container_option(mut self, option: &'static str) -> Self {
        self.container.push(option.to_owned());
        self
    }

    /// The same engine with containers in this network: `host`, `container:NAME`.
    pub fn with_network(&self, network: &str) -> Self {
        let mut engine = self.clone();
        engine.container.retain(|option| !option.starts_with("--network"));
        engine.container.push(format!("--network={network}"));
        engine
    }

    /// A call of the engine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.directory).args(&self.options).args(arguments);
        command
    }

    /// Imports the busybox image.
    pub fn with_image(mut self) -> Result<Self> {
        let image = Image::shared()?;
        // podman's monitor leaves a file named `oom` where it was started.
        self.directory = image.directory().to_owned();
        run(self.command(&["import"]).arg(image.tar()).arg(&image.name))?;
        Ok(self)
    }

    /// Starts a container that waits at a gate and then becomes `then`.
    pub fn start_gated(&self, options: &[&str], then: &str) -> Result<(Container, Gate)> {
        let gate = Gate::new()?;
        let container = self.start_at_gate(&unique(self.runtime), &gate, options, then)?;
        Ok((container, gate))
    }

    /// [`Engine::start_gated`] with a name that is known before.
    pub fn start_at_gate(
        &self,
        name: &str,
        gate: &Gate,
        options: &[&str],
        then: &str,
    ) -> Result<Container> {
        let volume = format!("{}:{}", gate.directory().display(), Gate::MOUNT);
        let mut command = self.command(&["run", "--detach", "--name", name]);
        command.args(&self.container).args(["--volume", &volume]).args(options);
        command.arg(&Image::shared()?.name).args(Gate::command(then));
        let mut container = self.container(name);
        container.id = run(&mut command)?;
        Ok(container)
    }

    /// Makes a container that is not started.
    pub fn create(&self, options: &[&str], command: &[&str]) -> Result<Container> {
        self.create_named(&unique(self.runtime), options, command)
    }

    /// [`Engine::create`] with a name that is known before.
    pub fn create_named(
        &self,
        name: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<Container> {
        let mut create = self.command(&["create", "--name", name]);
        create.args(&self.container).args(options);
        create.arg(&Image::shared()?.name).args(command);
        let mut container = self.container(name);
        container.id = run(&mut create)?;
        Ok(container)
    }

    /// Runs a container to its end, which removes it; its id.
    pub fn run_to_end(&self, name: &str, options: &[&str], command: &[&str]) -> Result<String> {
        let directory = TempDir::new("cid")?;
        let id_file = directory.path().join("id");
        let mut run_it = self.command(&["run", "--rm", "--name", name, "--cidfile"]);
        run_it.arg(&id_file).args(&self.container).args(options);
        run_it.arg(&Image::shared()?.name).args(command);
        let mut container = self.container(name);
        run(&mut run_it)?;
        container.is_removed = true;
        let id = fs::read_to_string(&id_file).context("reading the id's file")?;
        Ok(id.trim().to_owned())
    }

    /// Starts a container that goes on by itself.
    pub fn start(&self, options: &[&str], command: &[&str]) -> Result<Container> {
        let name = unique(self.runtime);
        let mut start = self.command(&["run", "--detach", "--name", &name]);
        start.args(&self.container).args(options);
        start.arg(&Image::shared()?.name).args(command);
        let mut container = self.container(&name);
        container.id = run(&mut start)?;
        Ok(container)
    }

    /// One of this name, to be removed even where starting it fails half-way.
    fn container(&self, name: &str) -> Container {
        let (engine, name) = (self.clone(), name.to_owned());
        Container { engine, name, id: String::new(), is_removed: false }
    }
}

/// A container; removed with its processes on drop.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    pub name: String,
    pub id: String,
    /// The engine has removed it by itself.
    is_removed: bool,
}

impl Container {
    /// Starts it and waits until it has ended.
    pub fn start_to_end(&self) -> Result<Finished> {
        finish(&mut self.engine.command(&["start", "--attach", &self.name]))
    }

    /// Runs a command inside to its end.
    pub fn exec(&self, options: &[&str], command: &[&str]) -> Result<String> {
        let mut exec = self.engine.command(&["exec"]);
        run(exec.args(options).arg(&self.name).args(command))
    }

    /// The host's pid of its first process.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.inspect("{{.State.Pid}}")?.parse()?;
        ensure!(pid != 0, "container {} does not run", self.name);
        Ok(pid)
    }

    /// Waits until it has ended; its exit code.
    pub fn wait(&self) -> Result<i32> {
        let code = run(&mut self.engine.command(&["wait", &self.name]))?;
        code.parse().with_context(|| format!("exit code {code}"))
    }

    /// What the engine itself says about an OOM kill.
    pub fn oom_killed(&self) -> Result<bool> {
        Ok(self.inspect("{{.State.OOMKilled}}")?.parse()?)
    }

    /// Sends SIGKILL by the engine.
    pub fn kill(&self) -> Result<()> {
        run(&mut self.engine.command(&["kill", &self.name])).map(drop)
    }

    /// Has the engine stop it: its stop signal, and SIGKILL after so many seconds.
    pub fn stop(&self, seconds: u32) -> Result<()> {
        let seconds = seconds.to_string();
        run(&mut self.engine.command(&["stop", "--time", &seconds, &self.name])).map(drop)
    }

    /// The exit code that the engine shows of a container that has ended.
    pub fn exit_code(&self) -> Result<u64> {
        Ok(self.inspect("{{.State.ExitCode}}")?.parse()?)
    }

    fn inspect(&self, format: &str) -> Result<String> {
        run(&mut self.engine.command(&["inspect", "--format", format, &self.name]))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.is_removed {
            return;
        }
        let removed = finish(&mut self.engine.command(&["rm", "--force", &self.name]));
        match removed.map(|finished| finished.expect_code(0)) {
            // One that was run with --rm is gone already.
            Ok(Err(error)) if !error.to_string().to_lowercase().contains("no such container") => {
                eprintln!("leaving container {}: {error:#}", self.name);
            }
            Err(error) => eprintln!("leaving container {}: {error:#}", self.name),
            Ok(_) => {}
        }
    }
}

/// Whether the path's last component is this container's, however the engine decorates its id.
pub fn is_cgroup_of(path: &str, id: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name.to_string_lossy().contains(id))
}
