//! One line an event: time, container, type, what happened. With its evidence indented below, where
//! that is asked for.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::Sink;
use crate::event::{Event, Severity, text::escape};

/// Width of the evidence's left column.
const LABEL_WIDTH: usize = 10;
/// What stands where an event is about ctrace itself, and in no container.
const NOBODY: &str = "-";

/// For people: times are local.
pub struct Text {
    colour: bool,
    is_verbose: bool,
    zone: jiff::tz::TimeZone,
    container: Column,
    kind: Column,
}

/// A column that becomes as wide as what was in it, up to a width that leaves room for the rest of the
/// line. What is wider is not cut: it moves the rest of its own line.
struct Column {
    width: usize,
    most: usize,
}

impl Column {
    /// What fills the column after `text`.
    fn fill(&mut self, text: &str) -> String {
        let length = text.chars().count();
        self.width = self.width.max(length.min(self.most));
        " ".repeat(self.width.saturating_sub(length))
    }
}

impl Text {
    /// `colour` only for a terminal.
    pub fn new(colour: bool, zone: jiff::tz::TimeZone) -> Self {
        Self {
            colour,
            is_verbose: false,
            zone,
            container: Column { width: 12, most: 32 },
            kind: Column { width: 8, most: 16 },
        }
    }

    /// With the lines of evidence below an event.
    pub fn verbose(self, is_verbose: bool) -> Self {
        Self { is_verbose, ..self }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// What is gone or failed is red, what is slow, denied or missing yellow, what goes on cyan.
fn style(severity: Severity) -> Style {
    match severity {
        Severity::Gone => AnsiColor::Red.on_default().bold(),
        Severity::Bad => AnsiColor::Red.on_default(),
        Severity::Notable => AnsiColor::Yellow.on_default(),
        Severity::Normal => AnsiColor::Cyan.on_default(),
        Severity::Gap => AnsiColor::Yellow.on_default().bold(),
    }
}

impl Sink for Text {
    fn write(&mut self, event: &Event, out: &mut dyn Write) -> io::Result<()> {
        let bold = Style::new().bold();
        let dim = Style::new().dimmed();
        let subject = event.subject.as_ref();
        let detail = event.payload.detail();
        // Every part that can hold bytes from outside is escaped before it is measured and coloured.
        let whose = subject.map_or_else(|| NOBODY.to_owned(), |subject| escape(&subject.label()));
        let kind = detail.type_name();
        let (after_whose, after_kind) = (self.container.fill(&whose), self.kind.fill(kind));
        writeln!(
            out,
            "{}  {}{after_whose}  {}{after_kind}  {}",
            self.paint(dim, &clock(event.time_ns, &self.zone)),
            self.paint(bold, &whose),
            self.paint(style(detail.severity()), kind),
            escape(&detail.headline(subject)),
        )?;
        if self.is_verbose {
            for evidence in detail.evidence(subject) {
                let label = self.paint(dim, &format!("{:LABEL_WIDTH$}", evidence.label));
                writeln!(out, "    {label}  {}", escape(&evidence.text))?;
            }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Attribution, Container, Exit, Lost, Payload, Subject};

    fn exit_of(container: &str) -> Event {
        let container = Container { name: Some(container.to_owned()), ..Container::default() };
        let attribution = Attribution { container: Some(container.into()), ..Default::default() };
        let mut subject = Subject { attribution: attribution.into(), ..Subject::default() };
        subject.process.pid = Some(7);
        subject.process.comm = Some("a\nb".to_owned());
        let exit = Exit { code: Some(1), ..Exit::default() };
        Event { time_ns: 0, subject: Some(subject), payload: Payload::Exit(exit) }
    }

    fn lost() -> Event {
        let lost = Lost { ring: "bulk", kind: "exit", count: 3 };
        Event { time_ns: 1_000_000, subject: None, payload: Payload::Lost(lost) }
    }

    fn render(text: Text, events: &[Event]) -> String {
        let mut text = text;
        let mut out = Vec::new();
        events.iter().for_each(|event| text.write(event, &mut out).expect("a Vec takes all"));
        String::from_utf8(out).expect("UTF-8")
    }

    fn plain() -> Text {
        Text::new(false, jiff::tz::TimeZone::UTC)
    }

    #[test]
    fn columns_grow_and_never_cut() {
        let long = "x".repeat(40);
        let events = ["web", "a-longer-name", "web", &long, "web"].map(exit_of);
        let got = render(plain(), &events);
        let at = |line: &str| line.find("exit ").expect("the type");
        let places: Vec<usize> = got.lines().map(at).collect();
        // Time and two spaces, the column, two spaces.
        assert_eq!(places, [28, 29, 29, 56, 48]);
        assert!(got.contains(&long));
    }

    #[test]
    fn one_line_each() {
        let expected = "\
00:00:00.000  web           exit      a\\nb[7] exit code 1
00:00:00.001  -             lost      3 exit records lost in bulk: a larger --bulk-ring-size \
holds more
";
        assert_eq!(render(plain(), &[exit_of("web"), lost()]), expected);
    }

    #[test]
    fn colour_does_not_move_the_columns() {
        let events = [exit_of("web"), lost(), exit_of("another-name-here")];
        let coloured = render(Text::new(true, jiff::tz::TimeZone::UTC), &events);
        assert!(coloured.contains("\x1b["));
        let mut bare = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once("\x1b[") {
            bare.push_str(before);
            rest = after.split_once('m').expect("the end of a colour").1;
        }
        bare.push_str(rest);
        assert_eq!(bare, render(plain(), &events));
    }

    proptest! {
        #[test]
        fn hostile_names_stay_on_their_line(name in any::<String>()) {
            let got = render(plain(), &[exit_of(&name)]);
            prop_assert_eq!(got.matches('\n').count(), 1);
            prop_assert!(!got.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
