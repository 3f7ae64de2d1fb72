//! What the user asked for, checked, before anything touches the kernel. Pure.

use std::{num::NonZeroU64, time::Duration};

use crate::{
    enrich::Socket,
    filter::Filter,
    probes::{self, Asked, PROBES, Probe},
};

/// A validated `ctrace watch`.
pub struct Plan {
    pub probes: Vec<Wanted>,
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

/// A probe that is to run, with what is asked of it.
#[derive(Clone)]
pub struct Wanted {
    pub probe: &'static dyn Probe,
    pub asked: Asked,
    /// Its events are asked for; else others [need](Probe::needs) its records.
    pub is_shown: bool,
}

impl Wanted {
    fn new(probe: &'static dyn Probe, asked: Asked) -> Self {
        Self { probe, asked, is_shown: true }
    }
}

/// What a family's name is followed by where everything of it is wanted.
const ALL: &str = "all";

/// The probes of a list of families, each with `:all` where everything of it is wanted; where there is
/// none, those that are [meant to run all day](Probe::by_default). Without those of `excluded`. `asked`: the thresholds.
///
/// # Errors
/// A message that names what is unknown and what there is.
pub fn parse_probes(
    names: &[String],
    excluded: &[String],
    asked: &Asked,
) -> Result<Vec<Wanted>, String> {
    let mut wanted: Vec<Wanted> = Vec::new();
    if names.is_empty() {
        let by_default = PROBES.iter().copied().filter(|probe| probe.by_default());
        wanted = by_default.map(|probe| Wanted::new(probe, asked.clone())).collect();
    }
    for name in names {
        let (family, all) = match name.split_once(':') {
            Some((family, ALL)) => (family, true),
            Some((family, what)) => {
                return Err(format!(
                    "'{what}' of '{name}' is unknown: write {family} or {family}:all"
                ));
            }
            None => (name.as_str(), false),
        };
        let probe = family_of(family)?;
        match wanted.iter_mut().find(|one| one.probe.name() == family) {
            Some(one) => one.asked.all |= all,
            None => wanted.push(Wanted::new(probe, Asked { all, ..asked.clone() })),
        }
    }
    for family in excluded {
        let excluded = family_of(family)?.name();
        wanted.retain(|one| one.probe.name() != excluded);
    }
    if wanted.is_empty() {
        return Err("every event is excluded".to_owned());
    }
    let needed: Vec<_> = wanted.iter().flat_map(|one| one.probe.needs()).collect();
    for name in needed {
        let probe = family_of(name)?;
        if !wanted.iter().any(|one| one.probe.name() == *name) {
            wanted.push(Wanted { is_shown: false, ..Wanted::new(probe, asked.clone()) });
        }
    }
    Ok(wanted)
}

fn family_of(name: &str) -> Result<&'static dyn Probe, String> {
    probes::by_name(name).ok_or_else(|| {
        let known: Vec<_> = PROBES.iter().map(|probe| probe.name()).collect();
        format!("unknown event '{name}': there is {}", known.join(", "))
    })
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

/// A duration as people write it, but none that is over at once: `10s`, `500ms`, `2m`, `1h`, or
/// seconds without a unit.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_threshold(text)?;
    if duration.is_zero() {
        Err(format!("a duration of {text} is over at once"))
    } else {
        Ok(duration)
    }
}

/// A duration from which on something is shown, written the same way; 0 shows all.
///
/// # Errors
/// A message that says what is expected.
pub fn parse_threshold(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is no duration: write 10s, 500ms, 20us, 2m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let seconds = match unit {
        "us" => number / 1_000_000.0,
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        "d" => number * 86400.0,
        _ => return Err(expected()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| expected())
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
        assert_eq!(parse_threshold("20ms"), Ok(Duration::from_millis(20)));
        assert_eq!(parse_threshold("0"), Ok(Duration::ZERO));
        assert!(parse_threshold("fast").is_err());
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
    fn families() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let parse = |names: &[&str], excluded: &[&str]| {
            let wanted = parse_probes(&list(names), &list(excluded), &Asked::default())?;
            let shown = wanted.iter().filter(|one| one.is_shown);
            let pairs = shown.map(|one| (one.probe.name(), one.asked.all));
            Ok::<_, String>(pairs.collect::<Vec<_>>())
        };
        assert_eq!(parse(&["oom", "oom"], &[]), Ok(vec![("oom", false)]));
        assert_eq!(parse(&["exec:all", "exec"], &[]), Ok(vec![("exec", true)]));
        assert_eq!(parse(&["exec", "exit"], &["exec"]), Ok(vec![("exit", false)]));
        assert!(parse(&[], &[]).is_ok_and(|all| all.contains(&("oom", false))));
        let message = |names: &[&str], excluded: &[&str]| parse(names, excluded).unwrap_err();
        assert!(message(&["oom", "nope"], &[]).contains("'nope': there is oom"));
        assert!(message(&["oom:some"], &[]).contains("write oom or oom:all"));
        assert!(message(&["oom"], &["nope"]).contains("'nope'"));
        assert_eq!(message(&["oom"], &["oom"]), "every event is excluded");
    }

    #[test]
    fn ends_are_judged_by_what_others_record() {
        let parse = |names: &[&str], excluded: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let list: [Vec<String>; 2] = [list(names), list(excluded)];
            let wanted =
                parse_probes(&list[0], &list[1], &Asked::default()).expect("known families");
            let pairs = wanted.iter().map(|one| (one.probe.name(), one.is_shown));
            pairs.collect::<Vec<_>>()
        };
        let hidden = [("exit", true), ("oom", false), ("signal", false)];
        assert_eq!(parse(&["exit"], &[]), hidden);
        assert_eq!(parse(&["oom", "exit"], &["oom"]), hidden);
        assert_eq!(
            parse(&["exit", "signal:all"], &[]),
            [("exit", true), ("signal", true), ("oom", false)]
        );
        assert_eq!(parse(&["oom"], &[]), [("oom", true)]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse_duration(&text);
            let _ = parse_ring_size(&text);
        }
    }
}
