//! Which containers were asked for, so that one that no runtime knows is not asked for with every
//! event of it. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a first ask for an id answers for the next ones; doubled with each ask after it.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);

/// How many ids are remembered.
const CAPACITY: usize = 4096;

/// Longest id in bytes: those of all runtimes are shorter (containerd's `pkg/identifiers`: 76).
const ID_BYTES: usize = 255;

/// The ids that were asked for.
#[derive(Debug, Default)]
pub struct Asked {
    ids: HashMap<String, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    until: Instant,
    length: Duration,
}

impl Asked {
    /// Whether a list is worth its cost for this id.
    pub fn admit(&mut self, id: &str, now: Instant) -> bool {
        if id.len() > ID_BYTES {
            return false;
        }
        let length = match self.ids.get(id) {
            Some(wait) if now < wait.until => return false,
            Some(wait) => (wait.length * 2).min(LONGEST),
            None => FIRST,
        };
        if self.ids.len() >= CAPACITY {
            self.ids.retain(|_, wait| now < wait.until);
        }
        if self.ids.len() >= CAPACITY {
            // All asked for a moment ago: forgetting them costs a list too many.
            self.ids.clear();
        }
        self.ids.insert(id.to_owned(), Wait { until: now + length, length });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_asked_for_ever_more_seldom() {
        let start = Instant::now();
        let mut asked = Asked::default();
        let admitted = (0..600_u64)
            .filter(|second| asked.admit("id", start + Duration::from_secs(*second)))
            .collect::<Vec<_>>();
        assert_eq!(admitted[..8], [0, 1, 3, 7, 15, 31, 63, 127]);
        assert_eq!(admitted.len(), 8 + (600 - 128) / 64);
        assert!(asked.admit("another", start));
    }

    #[test]
    fn memory_is_bounded_whatever_is_asked_for() {
        let now = Instant::now();
        let mut asked = Asked::default();
        for number in 0..3 * CAPACITY {
            assert!(asked.admit(&number.to_string(), now));
            assert!(asked.ids.len() <= CAPACITY);
        }
        assert!(!asked.admit(&"x".repeat(ID_BYTES + 1), now));
    }
}
