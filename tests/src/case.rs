//! One test: its title, its skips, its failure with the whole chain of causes.

use std::fmt;
use std::io::{self, Write as _};
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};

use anyhow::{Error, Result};

use crate::{facts, names};

/// Why a test cannot run on this host. Travels as an error; [`case`] turns it into a line.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// This kernel or machine cannot do it, whoever sets it up.
pub fn cannot(why: impl Into<String>) -> Error {
    Error::new(Skip(why.into()))
}

/// Something that the project could install is not there: natively on CI that is a failure.
pub fn missing(what: impl Into<String>) -> Error {
    let what = what.into();
    if facts::on_ci() && !facts::in_vm() {
        Error::msg(format!("{what}: has to be there on CI"))
    } else {
        Error::new(Skip(what))
    }
}

/// Runs a test's body. Only one runs at a time, whatever `--test-threads` says: they share the
/// kernel log and the machine's memory.
pub fn case(title: &str, body: impl FnOnce() -> Result<()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("\n== {title}");
    match names::sweep_once().and_then(|()| body()) {
        Ok(()) => {}
        // Past the test runner's capture: a skip is to be seen.
        Err(error) if error.is::<Skip>() => {
            let _ = writeln!(io::stderr(), "skipped: {title}: {error}");
        }
        Err(error) => {
            let report = format!("failed: {}", chain(&error));
            println!("{report}");
            // Without the panic hook: where this line is says nothing about the failure.
            resume_unwind(Box::new(report))
        }
    }
}

/// An error with its causes, without a backtrace: it is the host that went another way.
pub fn chain(error: &Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n  because: ")
}
