//! One JSON object a line.

use std::io::{self, Write};

use super::Sink;
use crate::event::Event;

/// The documented, versioned schema: [`crate::event::schema`].
pub struct Json;

impl Sink for Json {
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &event.value())?;
        out.write_all(b"\n")
    }
}
