//! Whose a mount namespace is.
//!
//! Keyed by the kernel's own number of the namespace, which is never used again. Its inode is: three
//! successive containers had the same one; on a kernel without the number nothing is claimed here.

use super::bounded::Bounded;
use super::resolve::{RETRY_MAX_NS, RETRY_MIN_NS};
use crate::event::CgroupKey;

const MAX_NAMESPACES: usize = 8 << 10;

/// How long mounts are not asked for again where the processes that had them were gone, nanoseconds.
const RETRY_GONE_NS: u64 = 5_000_000;

/// What names the container of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A process in it, in the container's pid namespace, is in this cgroup of the container's.
    Cgroup(CgroupKey),
    /// Its mounts name this id. `has_cgroup`: there is a cgroup of that name, which who is not in it
    /// has not joined yet.
    Id { id: String, has_cgroup: bool },
}

#[derive(Default)]
struct Entry {
    claim: Option<Claim>,
    /// An answer was given that goes by there being no claim.
    is_unclaimed_answer: bool,
    /// Its mounts have been read at least once.
    is_read: bool,
    /// When its mounts may be read again, nanoseconds since boot.
    retry_ns: u64,
    /// How long was last waited for that, nanoseconds.
    waited_ns: u64,
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

    /// Whether its mounts may be read, again or for the first time.
    pub fn is_due(&mut self, id: u64, now: u64) -> bool {
        now >= self.entry(id).retry_ns
    }

    /// Its mounts were read, which is done ever less often; or could not be, as nobody was left to
    /// read them from, which another process may change at any time.
    pub fn set_read(&mut self, id: u64, is_read: bool, now: u64) {
        let entry = self.entry(id);
        entry.is_read |= is_read;
        let wait = if is_read {
            entry.waited_ns = (2 * entry.waited_ns).clamp(RETRY_MIN_NS, RETRY_MAX_NS);
            entry.waited_ns
        } else {
            RETRY_GONE_NS
        };
        entry.retry_ns = now + wait;
    }

    /// Whether its mounts have been read.
    pub fn is_read(&mut self, id: u64) -> bool {
        self.entry(id).is_read
    }

    /// When its mounts may be read again, nanoseconds since boot.
    pub fn retry_at(&mut self, id: u64) -> u64 {
        self.entry(id).retry_ns
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
        let claim = |id: &str| Claim::Id { id: id.to_owned(), has_cgroup: false };
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
                // The first one was gone.
                namespaces.set_read(1, now > 0, now);
                assert_eq!(namespaces.is_read(1), now > 0);
            }
        }
        assert_eq!(reads, [0, 10, 110, 310, 710]);
    }
}
