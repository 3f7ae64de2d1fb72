//! The `ctrace` command: parse, plan, run, report.

use std::process::ExitCode;

use clap::Parser;
use ctrace::cli::{Cli, Usage, say};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("ctrace: {}", ctrace::event::text::escape(&format!("{error:#}"))));
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
