//! Containers of a low-level runtime without an engine: runc and crun.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::cannot;
use crate::command::run;
use crate::facts::{hybrid, patience, program};
use crate::gate::Gate;
use crate::image::Image;
use crate::names::{TempDir, leftovers_in, unique};
use crate::process::{parent, pidfd, readable};

pub const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// A started container; removed on drop.
#[derive(Debug)]
pub struct Container {
    program: PathBuf,
    pub id: String,
    pub pid: u32,
    _bundle: TempDir,
}

impl Container {
    /// Starts one that waits at a gate and then becomes `then`; its cgroup is `/<id>`.
    pub fn start_gated(runtime: &str, memory: u64, then: &str) -> Result<(Self, Gate)> {
        let gate = Gate::new()?;
        let container = Container::start(runtime, memory, &Gate::command(then), Some(&gate))?;
        Ok((container, gate))
    }

    /// Starts one that runs a command at once.
    pub fn start<S: AsRef<str>>(
        runtime: &str,
        memory: u64,
        command: &[S],
        gate: Option<&Gate>,
    ) -> Result<Self> {
        Container::start_below("", runtime, memory, command, gate)
    }

    /// [`Container::start`] with its cgroup `<parent>/<id>`.
    pub fn start_below<S: AsRef<str>>(
        parent: &str,
        runtime: &str,
        memory: u64,
        command: &[S],
        gate: Option<&Gate>,
    ) -> Result<Self> {
        let program = program(runtime)?;
        if runtime == "crun" && hybrid()? {
            return Err(cannot("crun refuses hybrid cgroups"));
        }
        let id = unique(runtime);
        let bundle = TempDir::new("bundle")?;
        run(Command::new(&program).arg("spec").current_dir(bundle.path()))?;
        let file = bundle.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let arguments: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        config["process"]["args"] = json!(arguments);
        config["process"]["terminal"] = json!(false);
        config["root"] = json!({ "path": Image::shared()?.root(), "readonly": true });
        config["linux"]["cgroupsPath"] = json!(format!("{parent}/{id}"));
        config["linux"]["resources"]["memory"] = json!({ "limit": memory, "swap": memory });
        if let Some(gate) = gate {
            let mounts = config["mounts"].as_array_mut().context("no mounts in the spec")?;
            mounts.push(json!({ "destination": Gate::MOUNT, "type": "bind",
                "source": gate.directory(), "options": ["rbind", "rw"] }));
        }
        fs::write(&file, config.to_string())?;
        let pid_file = bundle.path().join("pid");
        let log = fs::File::create(bundle.path().join("log"))?;
        let mut command = Command::new(&program);
        command.args(["run", "--detach", "--bundle"]).arg(bundle.path());
        command.arg("--pid-file").arg(&pid_file).arg(&id);
        // The container keeps these for its own.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = command.status()?;
        let mut container = Container { program, id, pid: 0, _bundle: bundle };
        ensure!(
            started.success(),
            "{command:?}: {started}: {}",
            fs::read_to_string(container._bundle.path().join("log"))?
        );
        container.pid = fs::read_to_string(pid_file)?.trim().parse()?;
        container.wait_detached()?;
        Ok(container)
    }

    /// Waits until the last of the runtime's own processes has gone and left the container to its
    /// final parent: init or a subreaper, an ancestor of these tests as well. Names do not tell: crun
    /// runs itself again from a file that has none.
    fn wait_detached(&self) -> Result<()> {
        let mut ancestors = vec![std::process::id()];
        while let Some(above) = ancestors.last().and_then(|pid| parent(*pid).ok()) {
            ancestors.push(above);
        }
        while let Ok(above) = parent(self.pid) {
            if ancestors.contains(&above) {
                break;
            }
            if let Ok(process) = pidfd(above) {
                ensure!(readable(process, patience(10))?, "process {above} does not end");
            }
        }
        Ok(())
    }

    /// Waits until its process has ended.
    pub fn wait(&self) -> Result<()> {
        match pidfd(self.pid) {
            Ok(process) => {
                ensure!(readable(process, patience(30))?, "container {} does not end", self.id);
            }
            // Reaped by its new parent already.
            Err(error) => ensure!(!Path::new(&format!("/proc/{}", self.pid)).exists(), error),
        }
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new(&self.program).args(["delete", "--force", &self.id])) {
            eprintln!("leaving container {}: {error:#}", self.id);
        }
    }
}

/// Removes containers that ended runs left.
pub fn sweep() -> Result<()> {
    // Where they keep their state: crun prefers the session's directory, where there is one.
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    for runtime in RUNTIMES {
        for directory in [Some(PathBuf::from("/run")), session.clone()].into_iter().flatten() {
            for id in leftovers_in(&directory.join(runtime)) {
                run(Command::new(program(runtime)?).args(["delete", "--force"]).arg(&id))?;
            }
        }
    }
    Ok(())
}
