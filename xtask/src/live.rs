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
    let messages = process::capture(process::cargo().args([
        "test",
        "--package",
        "ctrace-tests",
        "--test",
        "live",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]))?;
    Ok(LiveTests {
        executable: executable_in(&messages).context("cargo built no live tests")?,
        directory: workspace::root().join("tests"),
        binary_variable: format!("CTRACE_BIN={}", binary.display()),
    })
}

/// The path of the `live` test in cargo's messages.
fn executable_in(messages: &str) -> Option<String> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_live = message.get("target")?.get("name")? == "live";
        let executable = message.get("executable")?.as_str()?;
        is_live.then(|| executable.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_live_test_among_cargos_messages() {
        let messages = concat!(
            "not JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"ctrace"},"executable":"/t/a"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":"/t/live-1"}"#,
        );
        assert_eq!(executable_in(messages).as_deref(), Some("/t/live-1"));
        assert_eq!(executable_in(""), None);
    }
}
