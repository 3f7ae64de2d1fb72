//! Waits for a CPU that are told together: where CPUs are scarce, everything waits. Pure.

use rustc_hash::FxHashMap;

use crate::event::{Attribution, RunqDelay, Subject};

/// Containers and cgroups that are told apart; of more each wait is told.
const MAX_OWNERS: usize = 4096;

/// The first wait of a container, or of a cgroup that is none's, is told at once; those that follow
/// are counted, and told once a second by the longest.
#[derive(Debug, Default)]
pub struct Folds(FxHashMap<String, Option<Fold>>);

/// Waits not yet told.
#[derive(Debug)]
struct Fold {
    /// Who waited longest.
    subject: Subject,
    /// Its wait, with the count and the sum of all.
    longest: RunqDelay,
}

impl Folds {
    /// Whether the wait is to be told by itself; else it is kept for [`Folds::tick`].
    pub fn tells(&mut self, subject: &Subject, delay: &RunqDelay) -> bool {
        let Some(owner) = owner(subject) else { return true };
        let Some(fold) = self.0.get_mut(owner) else {
            if self.0.len() < MAX_OWNERS {
                self.0.insert(owner.to_owned(), None);
            }
            return true;
        };
        let kept = fold.take();
        let (count, sum_ns) =
            kept.as_ref().map_or((0, 0), |kept| (kept.longest.count, kept.longest.sum_ns));
        let mut longest = match kept {
            Some(kept) if kept.longest.delay_ns >= delay.delay_ns => kept,
            _ => Fold { subject: subject.clone(), longest: delay.clone() },
        };
        longest.longest.count = count + delay.count;
        longest.longest.sum_ns = sum_ns + delay.sum_ns;
        *fold = Some(longest);
        false
    }

    /// What was kept since the last call. Whoever did not wait since then is told at once again.
    pub fn tick(&mut self) -> Vec<(Subject, RunqDelay)> {
        let mut told = Vec::new();
        self.0.retain(|_, fold| match fold.take() {
            Some(Fold { subject, longest }) => {
                told.push((subject, longest));
                true
            }
            None => false,
        });
        told
    }
}

/// The container, else the cgroup; absent where neither is known.
fn owner(subject: &Subject) -> Option<&str> {
    let Attribution { container, path, .. } = &*subject.attribution;
    let path = path.as_ref().map(|(_, path)| &**path);
    container.as_ref().map(|container| container.id.as_str()).or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Container, Process};

    fn subject(container: &str, pid: u32) -> Subject {
        let container = Container { id: container.to_owned(), ..Container::default() };
        Subject {
            process: Process { pid: Some(pid), ..Process::default() },
            attribution: Attribution { container: Some(container.into()), ..Default::default() }
                .into(),
            ..Subject::default()
        }
    }

    fn wait(delay_ns: u64) -> RunqDelay {
        RunqDelay { delay_ns, sum_ns: delay_ns, ..RunqDelay::default() }
    }

    #[test]
    fn the_first_at_once_then_the_longest_of_a_second() {
        let mut folds = Folds::default();
        assert!(folds.tells(&subject("a", 1), &wait(30)));
        assert!(folds.tells(&subject("b", 2), &wait(30)));
        for (pid, delay) in [(3, 40), (4, 90), (5, 50)] {
            assert!(!folds.tells(&subject("a", pid), &wait(delay)));
        }
        let told = folds.tick();
        let expected = RunqDelay { delay_ns: 90, sum_ns: 180, count: 3, ..RunqDelay::default() };
        assert_eq!(told, [(subject("a", 4), expected)]);
        // `b` was quiet for a second, `a` was not.
        assert!(folds.tells(&subject("b", 2), &wait(30)));
        assert!(!folds.tells(&subject("a", 1), &wait(30)));
        assert_eq!(folds.tick().len(), 1);
        assert_eq!(folds.tick().len(), 0);
        assert!(folds.tells(&subject("a", 1), &wait(30)));
    }

    #[test]
    fn strangers_are_not_taken_together() {
        let mut folds = Folds::default();
        assert!((0..3).all(|_| folds.tells(&Subject::default(), &wait(1))));
    }

    #[test]
    fn memory_is_bounded() {
        let mut folds = Folds::default();
        for id in 0..2 * MAX_OWNERS {
            assert!(folds.tells(&subject(&id.to_string(), 1), &wait(1)));
        }
        assert_eq!(folds.0.len(), MAX_OWNERS);
        assert!(folds.tells(&subject(&MAX_OWNERS.to_string(), 1), &wait(1)));
        folds.tick();
        assert_eq!(folds.0.len(), 0);
    }

    proptest! {
        /// However waits and seconds come, all are told.
        #[test]
        fn nothing_is_left_out(steps in prop::collection::vec((0_u64..5, 0_u32..3), 0..200)) {
            let mut folds = Folds::default();
            let mut told = 0;
            for (delay, whose) in &steps {
                match delay {
                    0 => told += folds.tick().iter().map(|(_, wait)| wait.sum_ns).sum::<u64>(),
                    _ if folds.tells(&subject(&whose.to_string(), 1), &wait(*delay)) => told += delay,
                    _ => {}
                }
            }
            told += folds.tick().iter().map(|(_, wait)| wait.sum_ns).sum::<u64>();
            prop_assert_eq!(told, steps.iter().map(|(delay, _)| delay).sum::<u64>());
        }
    }
}
