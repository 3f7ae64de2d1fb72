//! What ctrace says of denials by seccomp.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Result;
use serde_json::Value;

use crate::event::Event;
use crate::facts::ctrace;
use crate::watch::Watch;

/// Starts `ctrace watch --events seccomp -o json` and more arguments, and waits until every hook is in
/// place.
pub fn watch(arguments: &[&str]) -> Result<Watch> {
    let mut command = Command::new(ctrace()?);
    command.args(["watch", "--events", "seccomp", "-o", "json"]).args(arguments);
    Watch::start(command)?.attached()
}

/// What a denial is: system call, ABI, action, error.
pub type Denial = (String, String, String, Option<String>);

/// The denials of the program of this name, and how many of each.
pub fn denials(events: &[Event], name: &str) -> Result<BTreeMap<Denial, u64>> {
    let mut denials = BTreeMap::new();
    for event in of_program(events, name) {
        let text = |field: &str| event.get(field).and_then(Value::as_str).map(str::to_owned);
        let number = || event.i64("/seccomp/syscall_nr").map(|number| number.to_string());
        let call = text("/seccomp/syscall").map_or_else(number, Ok)?;
        let arch = event.str("/seccomp/arch")?.to_owned();
        let action = event.str("/seccomp/action")?.to_owned();
        let denial = (call, arch, action, text("/seccomp/errno"));
        *denials.entry(denial).or_default() += event.u64("/seccomp/count")?;
    }
    Ok(denials)
}

/// The events of the program of this name.
pub fn of_program<'a>(events: &'a [Event], name: &str) -> impl Iterator<Item = &'a Event> {
    events.iter().filter(move |event| {
        event.is("seccomp") && event.get("/process/comm").and_then(Value::as_str) == Some(name)
    })
}

/// A denial of x86-64.
pub fn denial(call: &str, action: &str, errno: Option<&str>) -> Denial {
    (call.to_owned(), "x86_64".to_owned(), action.to_owned(), errno.map(str::to_owned))
}
