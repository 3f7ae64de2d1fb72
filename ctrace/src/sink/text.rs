//! One line an event, with its evidence indented below.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::Sink;
use crate::event::{Event, Payload, text::escape};

/// Width of the evidence's left column.
const LABEL_WIDTH: usize = 10;

/// For people: times are local.
pub struct Text {
    colour: bool,
    zone: jiff::tz::TimeZone,
}

impl Text {
    /// `colour` only for a terminal.
    pub fn new(colour: bool, zone: jiff::tz::TimeZone) -> Self {
        Self { colour, zone }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

impl Sink for Text {
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        let bold = Style::new().bold();
        let dim = Style::new().dimmed();
        let type_style = match event.payload {
            Payload::OomKill(_) => AnsiColor::Red.on_default().bold(),
            Payload::Exec(_) | Payload::Exit(_) => AnsiColor::Cyan.on_default(),
            Payload::Lost(_) => AnsiColor::Yellow.on_default().bold(),
        };
        let subject = event.subject.as_ref();
        let detail = event.payload.detail();
        // Every part that can hold bytes from outside is escaped before it is coloured.
        write!(
            out,
            "{} {}",
            self.paint(dim, &clock(event.time_ns, &self.zone)),
            self.paint(type_style, event.payload.type_name())
        )?;
        if let Some(subject) = subject {
            write!(out, "  {}", self.paint(bold, &escape(&subject.label())))?;
        }
        writeln!(out, "  {}", escape(&detail.headline(subject)))?;
        for evidence in detail.evidence(subject) {
            let label = self.paint(dim, &format!("{:LABEL_WIDTH$}", evidence.label));
            writeln!(out, "    {label}  {}", escape(&evidence.text))?;
        }
        Ok(())
    }
}

/// Local time of day with milliseconds; the date is not repeated on every line.
pub fn clock(time_ns: i128, zone: &jiff::tz::TimeZone) -> String {
    jiff::Timestamp::from_nanosecond(time_ns)
        .map(|time| time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string())
        .unwrap_or_else(|_| "??:??:??".to_owned())
}
