//! One line of `ctrace watch -o json`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

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
        Ok(())
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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
