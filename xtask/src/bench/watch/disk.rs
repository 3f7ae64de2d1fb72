//! fio on a loop device over a file in memory: no disk's own time hides what a tracer takes.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

pub struct Disk {
    file: PathBuf,
    device: String,
}

const BYTES: u64 = 256 << 20;

impl Disk {
    pub const HOOKS: &[&str] =
        &["block_bio_queue", "block_rq_issue", "block_rq_complete", "block_bio_complete"];
    pub const TARGET_PERCENT: f64 = 2.0;

    /// # Errors
    /// Where there is no fio or no loop device.
    pub fn new() -> Result<Self> {
        let file = PathBuf::from(format!("/dev/shm/ctrace-test-bench-{}", std::process::id()));
        fs::File::create(&file)
            .and_then(|made| made.set_len(BYTES))
            .with_context(|| format!("cannot make {}", file.display()))?;
        let mut this = Self { file, device: String::new() };
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).arg(&this.file);
        this.device = process::capture(&mut losetup)?.trim().to_owned();
        Ok(this)
    }

    /// Reads a second.
    pub fn run(&self) -> Result<f64> {
        let mut fio = Command::new("fio");
        fio.args(["--name=ctrace", "--rw=randread", "--bs=4k", "--direct=1", "--iodepth=16"]);
        fio.args(["--ioengine=libaio", "--time_based", "--runtime=3", "--output-format=json"]);
        fio.arg(format!("--filename={}", self.device));
        let report: Value = serde_json::from_str(&process::capture(&mut fio)?)?;
        report["jobs"][0]["read"]["iops"].as_f64().context("fio's report has no rate")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.device.is_empty()
            && let Err(error) =
                process::capture(Command::new("losetup").args(["--detach", &self.device]))
        {
            eprintln!("{} stays: {error:#}", self.device);
        }
        if let Err(error) = fs::remove_file(&self.file) {
            eprintln!("{} stays: {error}", self.file.display());
        }
    }
}
