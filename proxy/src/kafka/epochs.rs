//! Where an epoch ends: how a client finds out whether what it read is still there. Pure.

use bmq_proto::meta::EpochStart;
use bmq_proto::{Epoch, Offset};

/// The answer about one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch asked for, or the one before it that wrote anything.
    pub epoch: Epoch,
    /// First offset that was not written under it.
    pub end: Offset,
}

/// The end of an epoch: where the next one begins, or the high watermark for the newest. `None` for an epoch that is
/// not there yet. One from before the chain begins ends where the chain does begin.
pub fn epoch_end(chain: &[EpochStart], high_watermark: Offset, asked: Epoch) -> Option<EpochEnd> {
    let after = chain.iter().position(|entry| entry.epoch > asked).unwrap_or(chain.len());
    let floor = after.checked_sub(1).map(|at| chain[at].epoch);
    match (floor, chain.get(after)) {
        (_, Some(next)) => Some(EpochEnd { epoch: floor.unwrap_or(asked), end: next.start }),
        (Some(newest), None) if newest == asked => Some(EpochEnd { epoch: asked, end: high_watermark }),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let chain = [(2, 0), (4, 10), (5, 10), (7, 25)];
        let chain = chain.map(|(epoch, start)| EpochStart { epoch: Epoch(epoch), start: Offset(start) });
        let check = |asked: u32, expect: Option<(u32, u64)>| {
            let found = epoch_end(&chain, Offset(30), Epoch(asked)).map(|found| (found.epoch.0, found.end.0));
            assert_eq!(found, expect, "epoch {asked}");
        };
        check(1, Some((1, 0)));
        check(2, Some((2, 10)));
        check(3, Some((2, 10)));
        check(4, Some((4, 10)));
        check(6, Some((5, 25)));
        check(7, Some((7, 30)));
        check(8, None);
        assert_eq!(epoch_end(&[], Offset(0), Epoch(0)), None);
    }
}
