//! One line of `ctrace watch -o json`.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use jsonschema::Validator;
use serde_json::Value;

/// What ctrace's documentation says of the lines of `ctrace watch` and of `ctrace containers`, and of
/// the summary.
const EVENTS: &str = include_str!("../../docs/events.schema.json");
const CONTAINERS: &str = include_str!("../../docs/container.schema.json");
const SUMMARIES: &str = include_str!("../../docs/summary.schema.json");

/// A parsed event. Fields are addressed by JSON pointer, as in `/oom/limit_bytes`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    value: Value,
    /// When the test read it.
    arrived: SystemTime,
}

impl Event {
    /// Parses a line and checks what every event has.
    pub fn parse(line: &str) -> Result<Self> {
        let value = serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
        let event = Event { value, arrived: SystemTime::now() };
        event.check().with_context(|| format!("not an event: {event}"))?;
        Ok(event)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.u64("/v")? == 1, "schema version is not 1");
        let time = self.str("/time")?;
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        ensure!(shape == "9999-99-99T99:99:99.999999999Z", "time in another form: {time}");
        self.str("/type")?;
        fits_schema(&self.value)
    }

    /// A field, or nothing when it is absent or null.
    pub fn get(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer).filter(|value| !value.is_null())
    }

    fn need(&self, pointer: &str) -> Result<&Value> {
        self.get(pointer).with_context(|| format!("no {pointer} in {self}"))
    }

    pub fn u64(&self, pointer: &str) -> Result<u64> {
        let value = self.need(pointer)?;
        value.as_u64().with_context(|| format!("{pointer} is no unsigned number: {value}"))
    }

    pub fn i64(&self, pointer: &str) -> Result<i64> {
        let value = self.need(pointer)?;
        value.as_i64().with_context(|| format!("{pointer} is no number: {value}"))
    }

    pub fn str(&self, pointer: &str) -> Result<&str> {
        let value = self.need(pointer)?;
        value.as_str().with_context(|| format!("{pointer} is no string: {value}"))
    }

    pub fn array(&self, pointer: &str) -> Result<&[Value]> {
        let value = self.need(pointer)?;
        Ok(value.as_array().with_context(|| format!("{pointer} is no array: {value}"))?)
    }

    /// Whether it is of this type.
    pub fn is(&self, kind: &str) -> bool {
        self.value["type"] == kind
    }

    /// Whether it is about this process.
    pub fn is_of(&self, pid: u32) -> bool {
        self.value["process"]["pid"] == pid
    }

    /// Whether it is the end of this process.
    pub fn is_exit_of(&self, pid: u32) -> bool {
        self.is("exit") && self.is_of(pid)
    }

    /// Whether it is a signal to this process.
    pub fn is_signal_to(&self, pid: u32) -> bool {
        self.is("signal") && self.is_of(pid)
    }

    /// Whether it is the OOM kill of this process.
    pub fn is_oom_kill_of(&self, pid: u32) -> bool {
        self.is("oom_kill") && self.is_of(pid)
    }

    /// The innermost container's id.
    pub fn container_id(&self) -> Option<&str> {
        self.get("/container/id")?.as_str()
    }

    /// The innermost container's name.
    pub fn container_name(&self) -> Option<&str> {
        self.get("/container/name")?.as_str()
    }

    /// Inode of a namespace of its process: `pid`, `mnt` or `net`.
    pub fn namespace(&self, kind: &str) -> Option<u64> {
        self.get(&format!("/namespaces/{kind}"))?.as_u64()
    }

    /// From its time in the kernel until the test read it, which is less than a day.
    pub fn latency(&self) -> Result<Duration> {
        const DAY: u128 = 86_400_000_000_000;
        let time = self.str("/time")?;
        let number = |from: usize, to: usize| -> Result<u128> { Ok(time[from..to].parse()?) };
        let seconds = (number(11, 13)? * 60 + number(14, 16)?) * 60 + number(17, 19)?;
        let happened = seconds * 1_000_000_000 + number(20, 29)?;
        let arrived = self.arrived.duration_since(UNIX_EPOCH)?.as_nanos() % DAY;
        Ok(Duration::from_nanos(u64::try_from((arrived + DAY - happened) % DAY)?))
    }

    /// Records of a kind that a `lost` line counts; 0 for other lines. No kind: all of them.
    pub fn lost(&self, kind: Option<&str>) -> Result<u64> {
        if !self.is("lost") {
            return Ok(0);
        }
        self.str("/lost/ring")?;
        let is_it = kind.is_none_or(|kind| self.value["lost"]["kind"] == kind);
        match self.u64("/lost/count")? {
            0 => bail!("a lost line that counts nothing: {self}"),
            count => Ok(if is_it { count } else { 0 }),
        }
    }
}

/// Holds a line against the schema that ctrace publishes, by a validator that is not ctrace's.
pub fn fits_schema(line: &Value) -> Result<()> {
    static OF_EVENTS: OnceLock<Result<Validator, String>> = OnceLock::new();
    static OF_CONTAINERS: OnceLock<Result<Validator, String>> = OnceLock::new();
    static OF_SUMMARIES: OnceLock<Result<Validator, String>> = OnceLock::new();
    let kind = line["type"].as_str().unwrap_or_default();
    let validator = match kind {
        "summary" => OF_SUMMARIES.get_or_init(|| validator(SUMMARIES)),
        "unit" => OF_CONTAINERS.get_or_init(|| validator(CONTAINERS)),
        _ if kind.starts_with("container") => OF_CONTAINERS.get_or_init(|| validator(CONTAINERS)),
        _ => OF_EVENTS.get_or_init(|| validator(EVENTS)),
    };
    let validator = validator.as_ref().map_err(|error| anyhow!("the schema itself: {error}"))?;
    let errors = validator.iter_errors(line);
    let errors: Vec<_> =
        errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
    ensure!(errors.is_empty(), "against the schema in docs: {}", errors.join("; "));
    Ok(())
}

fn validator(schema: &str) -> Result<Validator, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    let options = jsonschema::options().should_validate_formats(true);
    options.build(&schema).map_err(|error| error.to_string())
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOST: &str = r#"{"v":1,"time":"2026-11-20T20:15:01.123456789Z","type":"lost","lost":{"ring":"rare","kind":"exit","count":3}}"#;

    fn fails(from: &str, to: &str) -> bool {
        let line = LOST.replace(from, to);
        assert_ne!(line, LOST, "{from} is not in it");
        Event::parse(&line).is_err()
    }

    #[test]
    fn the_schema_is_asked() {
        assert!(Event::parse(LOST).is_ok(), "{:?}", Event::parse(LOST));
        assert!(fails(r#""count":3"#, r#""count":"3""#), "another type");
        assert!(fails(r#""count":3"#, r#""count":-3"#), "below zero");
        assert!(fails(r#""count":3"#, r#""count":3,"more":1"#), "a member that it does not know");
        assert!(fails(r#""v":1"#, r#""v":1,"more":1"#), "another one");
        assert!(fails(r#""type":"lost""#, r#""type":"found""#), "a type that there is not");
        assert!(fails(r#""type":"lost""#, r#""type":"exit""#), "another type's payload");
        assert!(fails(r#""v":1"#, r#""v":1,"exit":{}"#), "two payloads");
    }
}
