//! `build` and `run`.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{process, setup, setup::Scope, workspace};

#[derive(clap::Args)]
pub struct RunArgs {
    /// Arguments for ctrace.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds the release binary and says where it is.
pub fn release() -> Result<PathBuf> {
    setup::ensure(Scope::Build)?;
    process::run(process::cargo().args(["build", "--release", "--package", "ctrace"]))?;
    Ok(workspace::target_dir().join("release/ctrace"))
}

/// Becomes ctrace, so that signals and the exit code are its own.
pub fn run(args: RunArgs) -> Result<()> {
    let binary = release()?;
    let mut command = Command::new(&binary);
    if needs_root(&args.args) && !process::is_root() {
        if !process::sudo_works() {
            bail!(
                "ctrace needs root, or CAP_BPF and CAP_PERFMON. Go on with:\n  \
                 sudo -E env PATH=$PATH cargo xtask run -- …\nor:\n  sudo {} …",
                binary.display()
            );
        }
        command = Command::new("sudo");
        command.arg("-n").arg(&binary);
    }
    let error = command.args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Help, versions and `check` say something useful to everybody.
fn needs_root(args: &[OsString]) -> bool {
    const FOR_EVERYBODY: &[&str] =
        &["check", "help", "completions", "--help", "-h", "--version", "-V"];
    !args.is_empty()
        && !args.iter().any(|arg| FOR_EVERYBODY.iter().any(|word| arg.as_os_str() == *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_check_need_no_root() {
        let cases: [(&[&str], bool); 5] = [
            (&[], false),
            (&["watch", "--help"], false),
            (&["check"], false),
            (&["watch", "--events", "oom"], true),
            (&["containers"], true),
        ];
        for (args, expected) in cases {
            let args: Vec<OsString> = args.iter().map(OsString::from).collect();
            assert_eq!(needs_root(&args), expected, "{args:?}");
        }
    }
}
