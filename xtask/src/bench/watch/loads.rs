//! The loads: what the kernel is kept busy with.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    disk::Disk,
    tracers::{CTRACE, NO_PAIRING},
};
use crate::process;

pub enum Load {
    /// A part of the benchmark `load` of the package `ctrace`.
    Kernel(Kernel, PathBuf),
    /// Random reads of 4 KiB through a loop device.
    Disk(Disk),
}

#[derive(Clone, Copy)]
pub struct Kernel {
    name: &'static str,
    hooks: &'static [&'static str],
    /// What a tracer may add, nanoseconds.
    targets: &'static [(&'static str, f64)],
    /// How many times what programs that do nothing add ctrace may add.
    ratio: Option<f64>,
}

const KERNEL: [Kernel; 3] = [
    Kernel {
        name: "getppid",
        hooks: &["sys_enter", "sys_exit"],
        // Two of a hundred: what cannot be told from nothing.
        targets: &[(NO_PAIRING, 3.0)],
        ratio: Some(1.6),
    },
    Kernel {
        name: "pipes",
        hooks: &["sched_switch", "sched_migrate_task", "sys_enter", "sys_exit"],
        targets: &[(CTRACE, 250.0), (NO_PAIRING, 250.0)],
        ratio: None,
    },
    Kernel {
        name: "spawn",
        hooks: &["sched_process_fork", "sched_process_exec", "sched_process_exit"],
        targets: &[],
        ratio: None,
    },
];

/// The benchmark's program, built.
pub fn program() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["bench", "--quiet", "--no-run", "--message-format", "json"]);
    command.args(["--package", "ctrace", "--bench", "load"]);
    let messages = process::capture(&mut command)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == "load")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no program for the loads")
}

impl Load {
    pub fn all(program: &Path) -> Result<Vec<Self>> {
        let mut all: Vec<_> =
            KERNEL.iter().map(|kernel| Self::Kernel(*kernel, program.to_owned())).collect();
        all.push(Self::Disk(Disk::new()?));
        Ok(all)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel(Kernel { name, .. }, _) => name,
            Self::Disk(_) => "fio randread",
        }
    }

    /// The tracepoints that matter to the load and that ctrace is on.
    pub fn hooks(&self) -> &'static [&'static str] {
        match self {
            Self::Kernel(Kernel { hooks, .. }, _) => hooks,
            Self::Disk(_) => Disk::HOOKS,
        }
    }

    pub fn unit(&self) -> &'static str {
        match self {
            Self::Kernel(..) => "ns",
            Self::Disk(_) => "IOPS",
        }
    }

    pub fn increment_unit(&self) -> &'static str {
        match self {
            Self::Kernel(..) => "ns",
            Self::Disk(_) => "%",
        }
    }

    /// What a tracer adds to the bare figure of its round: to the time, or what it takes of the rate.
    pub fn increment(&self, traced: f64, bare: f64) -> f64 {
        match self {
            Self::Kernel(..) => traced - bare,
            Self::Disk(_) => (bare - traced) / bare * 100.0,
        }
    }

    pub fn target(&self, tracer: &str) -> Option<f64> {
        match self {
            Self::Kernel(Kernel { targets, .. }, _) => {
                targets.iter().find(|target| target.0 == tracer).map(|target| target.1)
            }
            Self::Disk(_) => (tracer == CTRACE).then_some(Disk::TARGET_PERCENT),
        }
    }

    /// How many times what programs that do nothing add ctrace may add.
    pub fn ratio(&self) -> Option<f64> {
        match self {
            Self::Kernel(Kernel { ratio, .. }, _) => *ratio,
            Self::Disk(_) => None,
        }
    }

    /// One run.
    pub fn run(&self) -> Result<f64> {
        match self {
            Self::Kernel(Kernel { name, .. }, program) => {
                let figure = process::capture(Command::new(program).arg(name))?;
                figure.trim().parse().context("the load printed no figure")
            }
            Self::Disk(disk) => disk.run(),
        }
    }
}
