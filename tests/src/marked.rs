//! Commands whose last argument is a word of the test's own: their events are known by it alone,
//! whatever ctrace says of containers.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::event::Event;
use crate::names::PREFIX;

/// What is run; the host and the test's image have it at the same place.
pub const PROGRAM: &str = "/bin/true";

/// A shell's command that runs [`PROGRAM`] with this mark so many times, each in a process of its
/// own.
pub fn command(mark: &str, times: usize) -> [String; 4] {
    // The last one of a script would take the shell's place.
    let script = format!("{PROGRAM} \"$0\"; ").repeat(times) + ":";
    ["/bin/sh".to_owned(), "-c".to_owned(), script, mark.to_owned()]
}

/// A shell's command that runs [`PROGRAM`] with this mark ten times a second until it is killed.
pub fn endless(mark: &str) -> [String; 4] {
    let script = format!("while :; do {PROGRAM} \"$0\"; usleep 100000; done");
    ["/bin/sh".to_owned(), "-c".to_owned(), script, mark.to_owned()]
}

/// The mark of an exec of [`PROGRAM`].
pub fn mark_of(event: &Event) -> Option<&str> {
    if !event.is("exec") || event.get("/exec/filename")? != PROGRAM {
        return None;
    }
    match event.get("/exec/args")?.as_array()?.as_slice() {
        [_, mark] => mark.as_str().filter(|mark| mark.starts_with(PREFIX)),
        _ => None,
    }
}

/// The mark of a shell that [`command`] or [`endless`] made.
pub fn mark_of_shell(event: &Event) -> Option<&str> {
    if !event.is("exec") || event.get("/exec/filename")? != "/bin/sh" {
        return None;
    }
    match event.get("/exec/args")?.as_array()?.as_slice() {
        [_, _, _, mark] => mark.as_str().filter(|mark| mark.starts_with(PREFIX)),
        _ => None,
    }
}

/// A process for the length of its life: its pid and start.
pub fn process(event: &Event) -> Option<(u64, u64)> {
    let number = |pointer: &str| event.get(pointer)?.as_u64();
    Some((number("/process/pid")?, number("/process/start_boottime_ns")?))
}

/// The container that a mark's processes are in.
#[derive(Clone, Debug)]
pub struct Truth {
    pub id: String,
    /// None: the runtime knows no names.
    pub name: Option<String>,
}

/// How many events were where they belong.
#[derive(Debug, Default)]
pub struct Tally {
    pub events: usize,
    pub right_ids: usize,
    pub right_names: usize,
    /// Events by the value of `attribution`.
    pub vias: BTreeMap<String, usize>,
    /// Events by the value of `container.phase`.
    pub phases: BTreeMap<String, usize>,
    /// The first events that were wrong.
    wrong: Vec<String>,
}

impl Tally {
    /// Holds all events of marked processes, execs and exits, against the truth by mark. Events
    /// without a mark of `truths` are not looked at.
    pub fn of<'a>(
        events: impl IntoIterator<Item = &'a Event>,
        truths: &BTreeMap<String, Truth>,
    ) -> Self {
        let mut tally = Tally::default();
        let mut processes = BTreeMap::new();
        for event in events {
            if let Some(mark) = mark_of(event).or_else(|| mark_of_shell(event)) {
                processes.extend(process(event).map(|process| (process, mark.to_owned())));
            } else if !event.is("exit") {
                continue;
            }
            let mark = process(event).and_then(|process| processes.get(&process));
            if let Some(truth) = mark.and_then(|mark| truths.get(mark)) {
                tally.add(event, truth);
            }
        }
        tally
    }

    /// Counts one event that belongs to this container.
    pub fn add(&mut self, event: &Event, truth: &Truth) {
        let text = |pointer: &str| event.get(pointer).and_then(Value::as_str).unwrap_or("-");
        self.events += 1;
        *self.vias.entry(text("/attribution").to_owned()).or_default() += 1;
        *self.phases.entry(text("/container/phase").to_owned()).or_default() += 1;
        let right_id = event.container_id() == Some(&truth.id);
        let right_name = event.container_name() == truth.name.as_deref();
        self.right_ids += usize::from(right_id);
        self.right_names += usize::from(right_name);
        if !(right_id && right_name) && self.wrong.len() < 5 {
            self.wrong.push(format!("{truth:?}: {event}"));
        }
    }

    /// Prints the figures; fails unless there were at least so many events, every id was right and
    /// at most one name of a thousand was not.
    pub fn check(&self, at_least: usize) -> Result<()> {
        let Tally { events, right_ids, right_names, vias, phases, wrong } = self;
        println!("  events {events}, right ids {right_ids}, right names {right_names}");
        println!("  attribution {vias:?}, phase {phases:?}");
        let report = format!("the first that are wrong:\n{}", wrong.join("\n"));
        ensure!(*events >= at_least, "{events} events of marked processes, not {at_least}");
        ensure!(right_ids == events, "ids: {right_ids} of {events}; {report}");
        ensure!((events - right_names) * 1000 <= *events, "names: {right_names}; {report}");
        Ok(())
    }
}
