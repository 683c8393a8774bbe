//! Retries that spread out, and deadlines around calls to the outside.

use std::future::Future;
use std::time::Duration;

use thiserror::Error;

use crate::rng::Random;

/// Exponential back-off with full jitter: each delay is uniform between zero and a ceiling that
/// doubles up to a maximum, so that clients that failed together do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// `first` is the first ceiling and must not be zero; `max` is the last.
    pub fn new(first: Duration, max: Duration) -> Self {
        assert!(!first.is_zero(), "a back-off from zero never grows");
        assert!(first <= max, "the first ceiling {first:?} is above the last {max:?}");
        Backoff { first, max, ceiling: first }
    }

    /// The delay before the next try; never zero, never above `max`.
    pub fn next(&mut self, random: &Random) -> Duration {
        let ceiling_nanos = u64::try_from(self.ceiling.as_nanos()).unwrap_or(u64::MAX);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        Duration::from_nanos(1 + random.below(ceiling_nanos))
    }

    /// To be called after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.first;
    }
}

/// The call did not answer in time. Whether it happened is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} did not answer within {after:?}")]
pub struct DeadlineExceeded {
    pub what: &'static str,
    pub after: Duration,
}

/// Runs `future` for at most `duration`, then drops it: only for calls that may be cancelled.
pub async fn with_deadline<F: Future>(
    what: &'static str,
    duration: Duration,
    future: F,
) -> Result<F::Output, DeadlineExceeded> {
    tokio::time::timeout(duration, future).await.map_err(|_| DeadlineExceeded { what, after: duration })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_maximum_and_reset() {
        let random = Random::from_seed(3);
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(10), millis(50));
        for ceiling in [10, 20, 40, 50, 50] {
            assert_eq!(backoff.ceiling, millis(ceiling));
            let delay = backoff.next(&random);
            assert!(!delay.is_zero() && delay <= millis(ceiling), "{delay:?} of {ceiling} ms");
        }
        backoff.reset();
        assert_eq!(backoff.ceiling, millis(10));
    }

    #[test]
    fn delays_are_spread() {
        let random = Random::from_seed(4);
        let first = Duration::from_secs(1);
        let delays: Vec<_> = (0..100).map(|_| Backoff::new(first, first).next(&random)).collect();
        assert!(delays.iter().any(|delay| *delay < first / 4));
        assert!(delays.iter().any(|delay| *delay > first * 3 / 4));
    }

    #[tokio::test]
    async fn deadlines_name_the_call() {
        let late = with_deadline("the store", Duration::from_millis(1), std::future::pending::<()>());
        let error = late.await.unwrap_err();
        assert_eq!(error.to_string(), "the store did not answer within 1ms");
        let in_time = with_deadline("the store", Duration::from_secs(30), async { 7 });
        assert_eq!(in_time.await, Ok(7));
    }
}
