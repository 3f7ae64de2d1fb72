//! Containers whose pods may still come: only their runtimes know them, and are asked. Pure.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::event::is_hex64;

/// How long an event waits for its container's pod: asks are gathered for 200 ms, lists are a second
/// apart, and one takes some 100 ms.
pub const POD_WAIT: Duration = Duration::from_secs(3);

/// Ids that are remembered. Forgetting one costs its events a wait.
const CAPACITY: usize = 1 << 16;

/// Until when each may still come; absent: a runtime has told of the container.
#[derive(Debug, Default)]
pub struct Awaited(FxHashMap<String, Option<Instant>>);

impl Awaited {
    /// There is a container that its runtime is asked about.
    pub fn seen(&mut self, id: &str, now: Instant) {
        // Nobody is told of others.
        if is_hex64(id) && !self.0.contains_key(id) {
            self.put(id, Some(now + POD_WAIT));
        }
    }

    /// A runtime has told all that it knows.
    pub fn told(&mut self, id: &str) {
        self.put(id, None);
    }

    /// Whether a pod may still come.
    pub fn is_open(&self, id: &str, now: Instant) -> bool {
        self.0.get(id).is_some_and(|until| until.is_some_and(|until| now < until))
    }

    fn put(&mut self, id: &str, until: Option<Instant>) {
        if self.0.len() >= CAPACITY {
            self.0.clear();
        }
        self.0.insert(id.to_owned(), until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_come_until_the_runtime_has_spoken_or_too_long() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let [told, silent] = ["1", "2"].map(|digit| digit.repeat(64));
        let mut awaited = Awaited::default();
        assert!(!awaited.is_open(&told, start), "never seen");
        for id in [&told, &silent, &"runc".to_owned()] {
            awaited.seen(id, start);
        }
        assert!(awaited.is_open(&told, after(10)) && awaited.is_open(&silent, after(2_999)));
        assert!(!awaited.is_open("runc", start), "no runtime tells of it");
        awaited.told(&told);
        // Seen again, which begins nothing anew.
        for id in [&told, &silent] {
            awaited.seen(id, after(2_000));
        }
        assert!(!awaited.is_open(&told, after(2_001)) && awaited.is_open(&silent, after(2_001)));
        assert!(!awaited.is_open(&silent, after(3_000)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut awaited = Awaited::default();
        for number in 0..2 * CAPACITY {
            awaited.told(&number.to_string());
            assert!(awaited.0.len() <= CAPACITY);
        }
    }
}
