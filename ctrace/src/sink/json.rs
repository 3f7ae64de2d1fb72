//! One JSON object a line.

use std::io::{self, Write};

use super::Sink;
use crate::event::{
    CGROUP_FIELDS, Event, Namespaces, Process, VERSION, container_value,
    field::{Value, object},
    rfc3339,
};

/// The documented, versioned schema: [`crate::event::schema`].
pub struct Json;

impl Sink for Json {
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &value(event))?;
        out.write_all(b"\n")
    }
}

fn value(event: &Event) -> Value<'_> {
    let mut members = vec![
        ("v".into(), VERSION.into()),
        ("time".into(), Value::Text(rfc3339(event.time_ns).into())),
        ("type".into(), event.payload.type_name().into()),
    ];
    if let Some(subject) = &event.subject {
        members.extend([
            ("process".into(), object(Process::FIELDS, &subject.process)),
            ("container".into(), container_value(subject)),
            ("attribution".into(), subject.attribution.via.name().into()),
            ("cgroup".into(), object(CGROUP_FIELDS, subject)),
            ("namespaces".into(), object(Namespaces::FIELDS, &subject.namespaces)),
        ]);
    }
    let detail = event.payload.detail();
    members.push((detail.key().into(), detail.value()));
    Value::Object(members)
}
