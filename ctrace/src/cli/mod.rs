//! The command line: one file per command.

mod check;
mod containers;
mod selection;
mod watch;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

/// Says a line on standard error. That nobody reads it any more is no failure.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Bad usage that only shows once the host is looked at. It ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Watches a host's kernel for what goes wrong in containers, and says which container, what and
/// why.
#[derive(Debug, Parser)]
#[command(name = "ctrace", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ctrace watch                          everything, live, until Ctrl-C
  ctrace watch --container batch        one container, by name or start of its id
  ctrace watch -e oom -o json | jq .    OOM kills, for programs
  ctrace containers                     what runs here, of every runtime
  ctrace check                          what works on this host, and what is lost";

#[derive(Debug, Subcommand)]
enum Command {
    Watch(Box<watch::Args>),
    Containers(containers::Args),
    Check(check::Args),
    /// Prints a shell's completions, for example: ctrace completions bash >
    /// /etc/bash_completion.d/ctrace
    Completions {
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// With [`Usage`] where the arguments do not fit the host, else where the command failed.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Watch(args) => watch::run(*args),
            Command::Containers(args) => containers::run(args),
            Command::Check(args) => check::run(args),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "ctrace", &mut script);
                print(&script)
            }
        }
    }
}

/// Writes to standard output; that nobody reads it is no error.
fn print(bytes: &[u8]) -> Result<ExitCode> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    Always,
    Never,
}

impl Colour {
    fn on(self, terminal: &impl IsTerminal) -> bool {
        match self {
            Colour::Always => true,
            Colour::Never => false,
            // https://no-color.org
            Colour::Auto => {
                terminal.is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}
