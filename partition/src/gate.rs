//! Keeping the order of lanes: after a refusal nothing more of a lane is taken until its sender starts afresh.
//!
//! A lane that was never refused costs nothing: only refusals are remembered, by the generation they fell in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::{ErrorCode, ServiceError};

/// Above this many, refusals that are too old for anything of theirs to be still on its way are forgotten.
const MANY: usize = 4096;
/// Longer than any request may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(300);

/// The refusals of lanes named by `K`.
#[derive(Debug)]
pub struct Gate<K> {
    refused: HashMap<K, Refusal>,
    /// How many there may be before old ones are looked for.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy)]
struct Refusal {
    generation: u32,
    at: Monotonic,
}

impl<K> Default for Gate<K> {
    fn default() -> Self {
        Self { refused: HashMap::new(), sweep_at: MANY }
    }
}

impl<K: Hash + Eq + Clone> Gate<K> {
    /// `OutOfTurn` if something of this generation or a later one was refused; opens the lane for a higher one.
    pub fn check(&mut self, lane: &K, generation: u32) -> Result<(), ServiceError> {
        let Some(refusal) = self.refused.get(lane) else { return Ok(()) };
        if generation <= refusal.generation {
            let message = format!("an earlier batch of generation {} was refused", refusal.generation);
            return Err(ServiceError::not_applied(ErrorCode::OutOfTurn, message));
        }
        self.refused.remove(lane);
        Ok(())
    }

    /// Remembers that something of this lane was refused.
    pub fn refuse(&mut self, lane: K, generation: u32, now: Monotonic) {
        if self.refused.len() >= self.sweep_at {
            self.refused.retain(|_, refusal| now.saturating_since(refusal.at) < ON_ITS_WAY);
            self.sweep_at = MANY.max(2 * self.refused.len());
        }
        let refusal = self.refused.entry(lane).or_insert(Refusal { generation, at: now });
        *refusal = Refusal { generation: refusal.generation.max(generation), at: now };
    }

    /// Forgets lanes that are gone.
    pub fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        self.refused.retain(|lane, _| !gone(lane));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_generation_stays_refused_and_a_higher_one_opens() {
        let mut gate = Gate::default();
        assert!(gate.check(&1, 0).is_ok());
        gate.refuse(1, 0, Monotonic::ZERO);
        assert_eq!(gate.check(&1, 0).unwrap_err().code, ErrorCode::OutOfTurn);
        assert!(gate.check(&2, 0).is_ok(), "other lanes go on");
        assert!(gate.check(&1, 1).is_ok());
        assert!(gate.check(&1, 1).is_ok());
        gate.refuse(1, 2, Monotonic::ZERO);
        gate.refuse(1, 1, Monotonic::ZERO);
        assert!(gate.check(&1, 2).is_err(), "an older refusal does not open what a newer one closed");
    }

    #[test]
    fn old_refusals_do_not_pile_up() {
        let mut gate = Gate::default();
        for lane in 0..10 * MANY {
            gate.refuse(lane, 0, Monotonic::ZERO + Duration::from_secs(lane as u64));
        }
        assert!(gate.refused.len() <= MANY, "{}", gate.refused.len());
    }
}
