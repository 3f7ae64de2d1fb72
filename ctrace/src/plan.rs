//! What the user asked for, checked, before anything touches the kernel. Pure.

use std::{num::NonZeroU64, time::Duration};

use crate::{
    enrich::Socket,
    filter::Filter,
    probes::{self, PROBES, Probe},
};

/// A validated `ctrace watch`.
pub struct Plan {
    pub probes: Vec<&'static dyn Probe>,
    pub filter: Filter,
    /// Sockets to ask for what is on no disk.
    pub enrich: Vec<Socket>,
    /// Go on where a container of the filter is not known yet.
    pub wait: bool,
    pub limits: Limits,
    pub rings: RingSizes,
}

/// When it ends by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub duration: Option<Duration>,
    /// Events written.
    pub count: Option<NonZeroU64>,
}

impl Limits {
    /// Resolves when the duration is over, if there is one.
    pub async fn deadline(self) {
        match self.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    }
}

/// Bytes of the ring buffers: powers of two, a page at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    pub rare: u32,
    pub lifecycle: u32,
    pub bulk: u32,
}

/// The probes of a comma-separated list; where there is none, those that are
/// [meant to run all day](Probe::by_default).
///
/// # Errors
/// A message that names what is unknown and what there is.
pub fn parse_probes(names: &[String]) -> Result<Vec<&'static dyn Probe>, String> {
    if names.is_empty() {
        return Ok(PROBES.iter().copied().filter(|probe| probe.by_default()).collect());
    }
    let mut chosen: Vec<&'static dyn Probe> = Vec::new();
    for name in names {
        let probe = probes::by_name(name).ok_or_else(|| {
            let known: Vec<_> = PROBES.iter().map(|probe| probe.name()).collect();
            format!("unknown event '{name}': there is {}", known.join(", "))
        })?;
        if !chosen.iter().any(|other| other.name() == probe.name()) {
            chosen.push(probe);
        }
    }
    Ok(chosen)
}

/// A cgroup's path from the root of its hierarchy.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_cgroup(text: &str) -> Result<String, String> {
    if text.starts_with("/sys/fs/cgroup") {
        return Err(
            "write the path from the root of the hierarchy, as /proc/PID/cgroup does".into()
        );
    }
    let is_plain = text.starts_with('/') && !text.split('/').any(|name| name == "..");
    is_plain.then(|| text.to_owned()).ok_or_else(|| {
        format!("'{text}' is no path of a cgroup: write it as /proc/PID/cgroup does, from the root")
    })
}

/// A duration as people write it: `10s`, `500ms`, `2m`, `1h`, or seconds without a unit.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is no duration: write 10s, 500ms, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86400.0,
        _ => return Err(expected()),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| expected())?;
    if duration.is_zero() {
        Err(format!("a duration of {text} is over at once"))
    } else {
        Ok(duration)
    }
}

/// A ring's size: bytes, or with `K`, `KiB`, `M`, `MiB`, `G`, `GiB`; a power of two of at least a
/// page, because the kernel takes no other.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_ring_size(text: &str) -> Result<u32, String> {
    let expected = || {
        format!("'{text}' is no ring size: write a power of two from 4096 to 1GiB, like 256K or 4M")
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let factor: u64 = match unit {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    let bytes = number.checked_mul(factor).ok_or_else(expected)?;
    if bytes.is_power_of_two() && (4096..=1 << 30).contains(&bytes) {
        Ok(bytes as u32)
    } else {
        Err(expected())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "0", "-1s", "10 s", "1e9d", "10x", "1.2.3"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ring_sizes() {
        assert_eq!(parse_ring_size("4096"), Ok(4096));
        assert_eq!(parse_ring_size("256K"), Ok(256 << 10));
        assert_eq!(parse_ring_size("1GiB"), Ok(1 << 30));
        for bad in ["", "0", "2048", "5000", "3M", "2G", "K", "99999999999999999999"] {
            assert!(parse_ring_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_event_names_the_known_ones() {
        let Err(message) = parse_probes(&["oom".into(), "nope".into()]) else { panic!() };
        assert!(message.contains("'nope'") && message.contains("oom"), "{message}");
        assert_eq!(parse_probes(&["oom".into(), "oom".into()]).map(|p| p.len()), Ok(1));
        let names = |probes: Vec<&dyn Probe>| probes.iter().map(|p| p.name()).collect::<Vec<_>>();
        assert_eq!(parse_probes(&[]).map(names), Ok(vec!["oom"]));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse_duration(&text);
            let _ = parse_ring_size(&text);
        }
    }
}
