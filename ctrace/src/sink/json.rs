//! One JSON object a line.

use std::{
    io::{self, Write},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use serde::Serialize;

use super::Sink;
use crate::event::{Attribution, Event, rfc3339};

/// Answers whose JSON is kept; then all are forgotten, and made again as they come.
const MAX_ANSWERS: usize = 1024;

/// The documented, versioned schema: [`crate::event::schema`].
#[derive(Default)]
pub struct Json {
    /// A line as it is made.
    line: Vec<u8>,
    /// Containers in JSON, by the place of the answer that names them: the largest part of most
    /// events, and the same in many. An answer that is kept here keeps its place.
    containers: FxHashMap<usize, (Arc<Attribution>, Vec<u8>)>,
    /// The last second, UTC, up to its fraction.
    second: (i128, String),
}

const NS_PER_SECOND: i128 = 1_000_000_000;

impl Sink for Json {
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        self.line.clear();
        let mut before = b'{';
        for name in event.members() {
            self.line.push(before);
            self.line.push(b'"');
            self.line.extend_from_slice(name.as_bytes());
            self.line.extend_from_slice(b"\":");
            match (name, &event.subject) {
                ("time", _) => self.time(event.time_ns)?,
                ("container", Some(subject)) => self.container(&subject.attribution, event)?,
                _ => self.value(&event.member(name))?,
            }
            before = b',';
        }
        self.line.extend_from_slice(b"}\n");
        out.write_all(&self.line)
    }
}

impl Json {
    fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        Ok(serde_json::to_writer(&mut self.line, value)?)
    }

    fn container(&mut self, answer: &Arc<Attribution>, event: &Event) -> io::Result<()> {
        let Self { line, containers, second: _ } = self;
        let place = Arc::as_ptr(answer).addr();
        if let Some((_, made)) = containers.get(&place) {
            line.extend_from_slice(made);
            return Ok(());
        }
        if containers.len() >= MAX_ANSWERS {
            containers.clear();
        }
        let made = serde_json::to_vec(&event.member("container"))?;
        line.extend_from_slice(&made);
        containers.insert(place, (answer.clone(), made));
        Ok(())
    }

    /// As [`rfc3339`], which takes apart the day only once a second.
    fn time(&mut self, time_ns: i128) -> io::Result<()> {
        let second = time_ns.div_euclid(NS_PER_SECOND);
        if second != self.second.0 || self.second.1.is_empty() {
            let text = rfc3339(second * NS_PER_SECOND);
            let whole = text.split('.').next().unwrap_or_default();
            self.second = (second, whole.to_owned());
        }
        let fraction = time_ns.rem_euclid(NS_PER_SECOND);
        write!(self.line, "\"{}.{fraction:09}Z\"", self.second.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Container, Exit, Payload, Subject};

    fn event(container: &str, time_ns: i128) -> Event {
        let container = Container { name: Some(container.to_owned()), ..Container::default() };
        let attribution = Attribution { container: Some(container.into()), ..Default::default() };
        let subject = Subject { attribution: attribution.into(), ..Subject::default() };
        Event { time_ns, subject: Some(subject), payload: Payload::Exit(Exit::default()) }
    }

    fn read(json: &mut Json, event: &Event) -> serde_json::Value {
        let mut line = Vec::new();
        json.write(event, &mut line).expect("a Vec takes all");
        assert!(line.ends_with(b"}\n"));
        serde_json::from_slice(&line).expect("JSON")
    }

    #[test]
    fn what_is_kept_is_what_is_made() {
        let mut json = Json::default();
        for round in 0..3 {
            for (name, time_ns) in [("a\"\n", -1), ("b", 0), ("a\"\n", 1_790_000_000_000_000_042)] {
                let event = event(name, time_ns);
                let written = read(&mut json, &event);
                assert_eq!(written["container"]["name"], name, "round {round}");
                assert_eq!(written["time"], rfc3339(time_ns));
                let keys = written.as_object().map(|object| object.len());
                assert_eq!(keys, Some(event.members().count()));
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut json = Json::default();
        for number in 0..2 * MAX_ANSWERS {
            let name = number.to_string();
            assert_eq!(read(&mut json, &event(&name, 0))["container"]["name"], name);
        }
        assert!(json.containers.len() <= MAX_ANSWERS);
    }
}
