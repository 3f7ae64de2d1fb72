//! Where events go. An output format is one file behind [`Sink`].

mod json;
mod text;

use std::io::{self, Write};

pub use json::Json;
pub use text::{Text, clock};

use crate::event::Event;

/// An output format.
pub trait Sink: Send {
    /// Writes one event, whole lines.
    ///
    /// # Errors
    /// Those of the writer.
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()>;
}
