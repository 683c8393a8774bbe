//! Randomness through a handle, so that a simulation can replay it from a seed.
//!
//! Good for jitter, nonces and simulated faults; not for secrets.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

/// A shared generator: clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct Random {
    generator: Arc<Mutex<SmallRng>>,
}

impl Random {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self::over(SmallRng::from_os_rng())
    }

    /// The same seed gives the same sequence.
    pub fn from_seed(seed: u64) -> Self {
        Self::over(SmallRng::seed_from_u64(seed))
    }

    fn over(generator: SmallRng) -> Self {
        Random { generator: Arc::new(Mutex::new(generator)) }
    }

    pub fn next_u64(&self) -> u64 {
        self.generator.lock().next_u64()
    }

    /// Uniform in `0..end`; `end` must not be zero.
    pub fn below(&self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below zero");
        self.generator.lock().random_range(0..end)
    }

    /// True in `numerator` of `denominator` cases.
    pub fn chance(&self, numerator: u64, denominator: u64) -> bool {
        assert!(numerator <= denominator, "a chance of {numerator} in {denominator} is more than certain");
        self.below(denominator) < numerator
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let draw = |random: Random| {
            let mut bytes = [0; 5];
            random.fill(&mut bytes);
            (random.next_u64(), random.below(1_000), bytes)
        };
        assert_eq!(draw(Random::from_seed(7)), draw(Random::from_seed(7)));
        assert_ne!(draw(Random::from_seed(7)), draw(Random::from_seed(8)));
    }

    #[test]
    fn clones_share_one_sequence() {
        let alone = Random::from_seed(1);
        let expected = [alone.next_u64(), alone.next_u64()];
        let first = Random::from_seed(1);
        let second = first.clone();
        assert_eq!([first.next_u64(), second.next_u64()], expected);
    }

    #[test]
    fn bounds_hold() {
        let random = Random::from_os();
        for _ in 0..1_000 {
            assert!(random.below(3) < 3);
            assert!(random.chance(1, 1));
            assert!(!random.chance(0, 1));
        }
    }
}
