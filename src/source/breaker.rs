//! When a source is left alone.
//!
//! A source that fails again and again is not asked for a while: whoever would wait for it gets
//! the answer "no answer" at once, and it is not buried under questions while it recovers.
//!
//! - It **opens** after [`FAILURES_MAX`] failures in a row: no connection, a broken one, a server
//!   error, or no answer in time. An answer that refuses the query is no failure, and neither is a
//!   slow one that came in time: it is still an answer.
//! - While it is open nothing is asked. After the pause it is **half open**: one query is let
//!   through. If that is answered, the breaker closes; if not, the next pause is twice as long, up
//!   to [`PAUSE_MAX_MS`].
//! - Queries that were under way when it opened change nothing any more, unless one is answered:
//!   that closes it.
//! - A query that is given up (its asker left) says nothing about the source.

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 5;

/// The first pause, in milliseconds.
const PAUSE_MS: i64 = 5_000;

/// The longest pause, in milliseconds.
const PAUSE_MAX_MS: i64 = 60_000;

/// A count of failures, and what follows from it. Time is given.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    state: State,
}

/// Whether the source is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It is.
    #[default]
    Closed,
    /// One query is trying it out.
    HalfOpen {
        /// How long the last pause was, in milliseconds.
        pause_ms: i64,
    },
    /// It is not.
    Open {
        /// When it is tried again, in milliseconds since the epoch.
        until_ms: i64,
        /// How long the pause is, in milliseconds.
        pause_ms: i64,
    },
}

impl Breaker {
    /// Lets a query through, or says for how many milliseconds none is let through.
    pub(super) fn admit(&mut self, now_ms: i64) -> Result<(), i64> {
        match self.state {
            State::Closed => Ok(()),
            State::HalfOpen { .. } => Err(0),
            State::Open { until_ms, pause_ms } if now_ms >= until_ms => {
                self.state = State::HalfOpen { pause_ms };
                Ok(())
            }
            State::Open { until_ms, .. } => Err(until_ms - now_ms),
        }
    }

    /// A query was answered.
    pub(super) fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    /// A query failed.
    pub(super) fn failed(&mut self, now_ms: i64) {
        self.failures = self.failures.saturating_add(1);
        let pause_ms = match self.state {
            State::Closed if self.failures >= FAILURES_MAX => PAUSE_MS,
            State::HalfOpen { pause_ms } => (pause_ms * 2).min(PAUSE_MAX_MS),
            State::Closed | State::Open { .. } => return,
        };
        self.state = State::Open {
            until_ms: now_ms + pause_ms,
            pause_ms,
        };
    }

    /// A query was given up: the next one tries the source out.
    pub(super) fn abandoned(&mut self, now_ms: i64) {
        if let State::HalfOpen { pause_ms } = self.state {
            self.state = State::Open {
                until_ms: now_ms,
                pause_ms,
            };
        }
    }

    /// Whether the source is asked.
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Failures since the last answer.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(0), Ok(()));
            breaker.failed(0);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_starts_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            breaker.failed(0);
        }
        breaker.succeeded();
        breaker.failed(0);
        assert_eq!((breaker.state(), breaker.failures()), (State::Closed, 1));
        assert_eq!(open().admit(1_000), Err(PAUSE_MS - 1_000));
    }

    #[test]
    fn one_query_tries_it_out_and_pauses_grow() {
        let mut breaker = open();
        let mut now_ms = PAUSE_MS;
        for pause_ms in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(breaker.admit(now_ms), Ok(()));
            assert_eq!(breaker.admit(now_ms), Err(0), "only one");
            breaker.failed(now_ms);
            assert_eq!(breaker.admit(now_ms), Err(pause_ms));
            now_ms += pause_ms;
        }
        assert_eq!(breaker.admit(now_ms), Ok(()));
        breaker.succeeded();
        assert_eq!(breaker.admit(now_ms), Ok(()));
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn what_was_under_way_does_not_lengthen_the_pause() {
        let mut breaker = open();
        breaker.failed(4_000);
        assert_eq!(breaker.admit(PAUSE_MS), Ok(()));
    }

    /// Else nothing would ever try it again.
    #[test]
    fn a_trial_that_is_given_up_lets_the_next_one_through() {
        let mut breaker = open();
        assert_eq!(breaker.admit(PAUSE_MS), Ok(()));
        breaker.abandoned(PAUSE_MS);
        assert_eq!(breaker.admit(PAUSE_MS), Ok(()));
    }
}
