//! A map that forgets what was used least recently.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// At most `max_entries` entries of at most `max_bytes` together, as the caller counts them.
pub struct Bounded<K, V> {
    entries: HashMap<K, Entry<V>>,
    clock: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, bytes: 0, max_entries, max_bytes }
    }

    /// The value of `key`, which counts as used now.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    pub fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.clock += 1;
        let entry = Entry { value, bytes, used: self.clock };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(key, entry) {
            self.bytes -= old.bytes;
        }
        if self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            self.evict();
        }
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    /// Forgets the least recently used until an eighth is free, so that the search is paid once in
    /// many insertions.
    fn evict(&mut self) {
        let (entries, bytes) = (self.max_entries / 8 * 7, self.max_bytes / 8 * 7);
        let mut ages: Vec<(u64, usize)> =
            self.entries.values().map(|entry| (entry.used, entry.bytes)).collect();
        ages.sort_unstable();
        let mut left = ages.len();
        let mut oldest_kept = 0;
        for (used, size) in ages {
            // The newest stays, however large it is.
            if left == 1 || (left <= entries && self.bytes <= bytes) {
                oldest_kept = used;
                break;
            }
            left -= 1;
            self.bytes -= size;
        }
        self.entries.retain(|_, entry| entry.used >= oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut map = Bounded::new(16, 1 << 20);
        for key in 0..16 {
            map.insert(key, key, 1);
        }
        map.get(&0);
        map.insert(16, 16, 1);
        assert!(map.values().count() <= 16);
        assert_eq!(map.get(&0).copied(), Some(0));
        assert_eq!(map.get(&16).copied(), Some(16));
        assert_eq!(map.get(&1), None);
    }

    #[test]
    fn bytes_are_bounded_and_replacing_counts_once() {
        let mut map = Bounded::new(1000, 80);
        for round in 0..100 {
            map.insert(1, round, 30);
        }
        map.insert(2, 2, 30);
        assert_eq!(map.values().count(), 2);
        map.insert(3, 3, 30);
        assert_eq!(map.get(&1), None);
        map.insert(4, 4, 1000);
        assert_eq!(map.values().copied().collect::<Vec<_>>(), [4]);
        map.insert(5, 5, 10);
        assert_eq!(map.values().copied().collect::<Vec<_>>(), [5]);
    }
}
