//! A circuit breaker: a daemon that fails again and again is left alone for a while. Pure.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 3;

/// Whether one more attempt may be made.
#[derive(Debug)]
pub struct Breaker {
    /// How long it stays open.
    open_for: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Attempts are made; so many have failed in a row.
    Closed { failures: u32 },
    /// None is made before that time.
    Open { until: Instant },
    /// One is being made, which decides.
    Trial,
}

impl Breaker {
    pub fn new(open_for: Duration) -> Self {
        Self { open_for, state: State::Closed { failures: 0 } }
    }

    /// Asks for an attempt, whose outcome is to be told. After the time of being open one attempt
    /// is granted, and no second before its outcome is known.
    pub fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } if now < until => false,
            State::Open { .. } => {
                self.state = State::Trial;
                true
            }
            State::Trial => false,
        }
    }

    pub fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    pub fn failed(&mut self, now: Instant) {
        let failures = match self.state {
            State::Closed { failures } => failures + 1,
            State::Open { .. } | State::Trial => FAILURES,
        };
        self.state = if failures < FAILURES {
            State::Closed { failures }
        } else {
            State::Open { until: now + self.open_for }
        };
    }

    /// When it grants an attempt again; `None`: it is not open.
    pub fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed { .. } | State::Trial => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPEN: Duration = Duration::from_secs(30);
    const INSTANT: Duration = Duration::from_nanos(1);

    #[test]
    fn three_failures_in_a_row_open_it_for_its_time_and_then_one_trial_decides() {
        let start = Instant::now();
        let mut breaker = Breaker::new(OPEN);
        for _ in 0..2 {
            assert!(breaker.admit(start));
            breaker.failed(start);
            assert_eq!(breaker.open_until(), None);
        }
        assert!(breaker.admit(start));
        breaker.failed(start);
        assert_eq!(breaker.open_until(), Some(start + OPEN));
        assert!(!breaker.admit(start + OPEN - INSTANT));

        let trial = start + OPEN;
        assert!(breaker.admit(trial));
        assert!(!breaker.admit(trial + INSTANT), "one trial only");
        breaker.failed(trial + INSTANT);
        assert!(!breaker.admit(trial + OPEN), "a failed trial opens it for its whole time");

        let second = trial + INSTANT + OPEN;
        assert!(breaker.admit(second));
        breaker.succeeded();
        assert_eq!(breaker.open_until(), None);
        // It counts from the beginning.
        for _ in 0..2 {
            breaker.failed(second);
            assert!(breaker.admit(second));
        }
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let now = Instant::now();
        let mut breaker = Breaker::new(OPEN);
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.admit(now));
    }

    proptest! {
        /// Whatever happens, a daemon that always fails is asked three times, then once in the
        /// breaker's time.
        #[test]
        fn a_dead_daemon_is_asked_seldom(steps in prop::collection::vec(0..20_000_u64, 1..200)) {
            let start = Instant::now();
            let mut now = start;
            let mut breaker = Breaker::new(OPEN);
            let mut attempts = 0;
            for step in steps {
                now += Duration::from_millis(step);
                if breaker.admit(now) {
                    breaker.failed(now);
                    attempts += 1;
                }
            }
            prop_assert!(attempts <= 3 + (now - start).as_secs() / OPEN.as_secs());
        }
    }
}
