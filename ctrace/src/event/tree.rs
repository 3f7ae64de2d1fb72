//! An event as a tree of values: what JSON shows, and what conditions ask.

use super::{
    CGROUP_FIELDS, Event, Namespaces, Process, VERSION, container_value,
    field::{Value, object},
    rfc3339,
};

/// Members of every event, in their order.
const HEAD: [&str; 3] = ["v", "time", "type"];
/// Members of an event that is about somebody.
const WHOSE: [&str; 5] = ["process", "container", "attribution", "cgroup", "namespaces"];

impl Event {
    /// The names of its members, in their order.
    pub fn members(&self) -> impl Iterator<Item = &'static str> {
        let whose: &[&str] = if self.subject.is_some() { &WHOSE } else { &[] };
        HEAD.iter().chain(whose).copied().chain([self.payload.detail().key()])
    }

    /// One of its members; null where it has none of this name.
    pub fn member(&self, name: &str) -> Value<'_> {
        match (name, &self.subject) {
            ("v", _) => VERSION.into(),
            ("time", _) => rfc3339(self.time_ns).into(),
            ("type", _) => self.payload.detail().type_name().into(),
            ("process", Some(subject)) => {
                let process = subject.is_process().then_some(&subject.process);
                process.map(|process| object(Process::FIELDS, process)).into()
            }
            ("container", Some(subject)) => container_value(subject),
            ("attribution", Some(subject)) => subject.attribution.via.name().into(),
            ("cgroup", Some(subject)) => object(CGROUP_FIELDS, subject),
            ("namespaces", Some(subject)) => {
                let namespaces = subject.is_process().then_some(&subject.namespaces);
                namespaces.map(|namespaces| object(Namespaces::FIELDS, namespaces)).into()
            }
            (name, _) => {
                let detail = self.payload.detail();
                if name == detail.key() { detail.value() } else { Value::Null }
            }
        }
    }
}
