//! Starting other programs.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The cargo that runs this xtask, started in the workspace.
pub fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(crate::workspace::root());
    command
}

/// Runs a command on this terminal; failing is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", describe(command)))?;
    ensure!(status.success(), "{} failed: {status}", describe(command));
    Ok(())
}

/// Runs a command and returns what it printed; failing is an error that ends in its last words.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = messages.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        bail!("{} failed: {}: {last}", describe(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| describe(command))
}

/// Whether a command runs and succeeds; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A program on the search path or in the system's directories for administrators.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| {
            fs::metadata(candidate)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// Whether this process runs with root's rights.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether `sudo` works without asking for a password.
pub fn sudo_works() -> bool {
    succeeds(Command::new("sudo").args(["-n", "true"]))
}

/// A command that runs as root; an error says what to type when that is not possible.
pub fn as_root(words: &[&str]) -> Result<Command> {
    let (program, args) = words.split_first().context("no command")?;
    if is_root() {
        let mut command = Command::new(program);
        command.args(args);
        return Ok(command);
    }
    ensure!(sudo_works(), "this needs root; run: sudo {}", words.join(" "));
    let mut command = Command::new("sudo");
    command.arg("-n").args(words);
    Ok(command)
}
