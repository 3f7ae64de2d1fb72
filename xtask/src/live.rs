//! The live tests' executable, which runs here and in virtual machines.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{build, process, workspace};

/// What runs the live tests.
pub struct LiveTests {
    pub executable: String,
    /// Where cargo would start them.
    pub directory: PathBuf,
    /// The ctrace under test, as an assignment for `env`.
    pub binary_variable: String,
}

/// The tests share one kernel: one at a time.
pub const RUNNER_ARGS: &[&str] = &["--test-threads=1"];

/// Builds ctrace and the live tests.
pub fn build() -> Result<LiveTests> {
    let binary = build::release()?;
    Ok(LiveTests {
        executable: test_executable(&["--package", "ctrace-tests"], "live")?,
        directory: workspace::root().join("tests"),
        binary_variable: format!("CTRACE_BIN={}", binary.display()),
    })
}

/// Builds the test that holds the BTF reader against bpftool: optimised, because a virtual machine
/// is slow and a kernel's BTF is large.
pub fn build_btf() -> Result<String> {
    test_executable(&["--package", "ctrace", "--release"], "btf")
}

fn test_executable(options: &[&str], test: &str) -> Result<String> {
    let mut cargo = process::cargo();
    cargo.arg("test").args(options).args(["--test", test, "--no-run"]);
    let messages = process::capture(cargo.arg("--message-format=json-render-diagnostics"))?;
    executable_in(&messages, test).with_context(|| format!("cargo built no test {test}"))
}

/// The path of a test in cargo's messages.
fn executable_in(messages: &str, test: &str) -> Option<String> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message.get("target")?.get("name")? == test;
        let executable = message.get("executable")?.as_str()?;
        is_it.then(|| executable.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_test_among_cargos_messages() {
        let messages = concat!(
            "not JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ctrace"},"executable":"/t/a"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":"/t/live-1"}"#,
        );
        assert_eq!(executable_in(messages, "live").as_deref(), Some("/t/live-1"));
        assert_eq!(executable_in("", "live"), None);
    }
}
