//! Whose a mount namespace is.
//!
//! Keyed by the kernel's own number of the namespace, which is never used again. Its inode is: three
//! successive containers had the same one; on a kernel without the number nothing is claimed here.

use super::bounded::Bounded;
use super::resolve::{RETRY_MAX_NS, RETRY_MIN_NS};
use crate::event::CgroupKey;

const MAX_NAMESPACES: usize = 8 << 10;

/// What names the container of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A process in it, in the container's pid namespace, is in this cgroup of the container's.
    Cgroup(CgroupKey),
    /// Its mounts name this id.
    Id(String),
}

#[derive(Default)]
struct Entry {
    claim: Option<Claim>,
    /// An answer was given that goes by there being no claim.
    is_unclaimed_answer: bool,
    /// When its mounts may be read again, and how long was waited for that, nanoseconds.
    retry: Option<(u64, u64)>,
}

pub struct Namespaces {
    by_id: Bounded<u64, Entry>,
    epoch: u64,
}

impl Namespaces {
    pub fn new() -> Self {
        Self { by_id: Bounded::new(MAX_NAMESPACES, usize::MAX), epoch: 0 }
    }

    /// Grows when what was answered may no longer be true.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn claim(&mut self, id: u64) -> Option<Claim> {
        self.by_id.get(&id)?.claim.clone()
    }

    /// An answer is given that would be another if the namespace were claimed.
    pub fn note_unclaimed(&mut self, id: u64) {
        self.entry(id).is_unclaimed_answer = true;
    }

    pub fn set_claim(&mut self, id: u64, claim: Claim) {
        let entry = self.entry(id);
        let is_other = entry.claim.as_ref().is_some_and(|old| *old != claim);
        let is_news = is_other || std::mem::take(&mut entry.is_unclaimed_answer);
        entry.claim = Some(claim);
        self.epoch += u64::from(is_news);
    }

    /// Whether its mounts are to be read now; if so, the next time is later.
    pub fn is_due(&mut self, id: u64, now: u64) -> bool {
        let entry = self.entry(id);
        if entry.retry.is_some_and(|(at, _)| now < at) {
            return false;
        }
        let waited = entry.retry.map(|retry| retry.1);
        let wait = waited.map_or(RETRY_MIN_NS, |waited| (waited * 2).min(RETRY_MAX_NS));
        entry.retry = Some((now + wait, wait));
        true
    }

    /// When its mounts may be read again, nanoseconds since boot.
    pub fn retry_at(&mut self, id: u64) -> Option<u64> {
        self.entry(id).retry.map(|retry| retry.0)
    }

    fn entry(&mut self, id: u64) -> &mut Entry {
        if self.by_id.get(&id).is_none() {
            self.by_id.insert(id, Entry::default(), 1);
        }
        self.by_id.get(&id).expect("just inserted, and the newest stays")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_changes_an_answer_changes_the_epoch() {
        let mut namespaces = Namespaces::new();
        let claim = |id: &str| Claim::Id(id.to_owned());
        namespaces.set_claim(1, claim("a"));
        assert_eq!((namespaces.epoch(), namespaces.claim(1)), (0, Some(claim("a"))));
        namespaces.set_claim(1, claim("a"));
        assert_eq!(namespaces.epoch(), 0);
        namespaces.set_claim(1, claim("b"));
        assert_eq!(namespaces.epoch(), 1);
        assert_eq!(namespaces.claim(2), None);
        namespaces.note_unclaimed(2);
        namespaces.set_claim(2, claim("c"));
        assert_eq!(namespaces.epoch(), 2);
    }

    #[test]
    fn mounts_are_read_ever_less_often() {
        let mut namespaces = Namespaces::new();
        let mut reads = Vec::new();
        for now in (0..1_000_000_000).step_by(10_000_000) {
            if namespaces.is_due(1, now) {
                reads.push(now / 1_000_000);
            }
        }
        assert_eq!(reads, [0, 100, 300, 700]);
    }
}
