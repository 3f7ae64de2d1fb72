//! How long ctrace takes to attach, and how much memory it then holds.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::table::Row;

const ATTACH_TARGET_MS: f64 = 300.0;
const RESIDENT_TARGET_MIB: f64 = 20.0;

struct Sample {
    attach: Duration,
    resident_mib: f64,
    peak_mib: f64,
}

pub fn measure(binary: &Path, runs: u32) -> Result<Vec<Row>> {
    // The first run fills the page cache.
    sample(binary)?;
    let samples = (0..runs).map(|_| sample(binary)).collect::<Result<Vec<Sample>>>()?;
    let column = |value: fn(&Sample) -> f64| samples.iter().map(value).collect();
    Ok(vec![
        Row::new(
            "exec to attached",
            "ms",
            column(|sample| sample.attach.as_secs_f64() * 1e3),
            Some(ATTACH_TARGET_MS),
        ),
        Row::new(
            "resident after attach",
            "MiB",
            column(|sample| sample.resident_mib),
            Some(RESIDENT_TARGET_MIB),
        ),
        Row::new("peak resident", "MiB", column(|sample| sample.peak_mib), None),
    ])
}

fn sample(binary: &Path) -> Result<Sample> {
    let started = Instant::now();
    let mut child = Command::new(binary)
        .args(["watch", "--events", "oom", "--duration", "1s"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let mut said = Vec::new();
    loop {
        let Some(line) = lines.next().transpose()? else {
            bail!("ctrace did not attach, {}: {}", child.wait()?, said.join("; "));
        };
        if line.starts_with("attached:") {
            break;
        }
        said.push(line);
    }
    let attach = started.elapsed();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    // Reads to the end, so that ctrace never writes into a closed pipe.
    lines.for_each(drop);
    let ending = child.wait()?;
    ensure!(ending.success(), "ctrace failed: {ending}");
    Ok(Sample {
        attach,
        resident_mib: mebibytes(&status, "VmRSS").context("no VmRSS")?,
        peak_mib: mebibytes(&status, "VmHWM").context("no VmHWM")?,
    })
}

/// A field of `/proc/PID/status` in MiB.
fn mebibytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_from_status() {
        let status = "Name:\tctrace\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n";
        assert_eq!(mebibytes(status, "VmRSS"), Some(2.0));
        assert_eq!(mebibytes(status, "VmHWM"), Some(4.0));
        assert_eq!(mebibytes(status, "VmSwap"), None);
    }
}
