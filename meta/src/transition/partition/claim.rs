//! A claim's life: taken, recovered, released.

use bmq_proto::meta::{EpochStart, Intent, Owner, PartitionHead, SegmentEnd};
use bmq_proto::{BytePosition, ErrorCode, FileId, Offset, ServiceError};

use super::super::refuse;
use super::{Changes, Transition};

/// Most entries of an epoch chain, so that a head that is claimed again and again stays small.
const MAX_EPOCH_CHAIN: usize = 1_024;

impl Transition<'_> {
    pub(super) fn claim(&self, intent: Option<&Intent>, owner: Owner) -> Result<Changes, ServiceError> {
        match intent {
            Some(intent) if intent.node == owner.node => {}
            Some(intent) => {
                let message = format!("the partition is meant for node {}, not for {}", intent.node, owner.node);
                return refuse(ErrorCode::NotOwner, message);
            }
            None => return refuse(ErrorCode::NotOwner, "the partition is meant for no node"),
        }
        let head = self.head();
        if head.epoch.0 >= i32::MAX as u32 {
            return refuse(ErrorCode::Internal, "the partition's epochs are used up");
        }
        let head = PartitionHead { epoch: head.epoch.next(), owner: Some(owner), recovered: false, ..head.clone() };
        Ok(Changes { head: Some(head), ..Changes::default() })
    }

    pub(super) fn record_floor(&self, file: FileId, floor: BytePosition) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let mut changes = Changes::default();
        let Some(open) = self.records.open_segment().filter(|open| open.file == file) else {
            return refuse(ErrorCode::Conflict, format!("{file} is not the open segment"));
        };
        if open.floor.is_none_or(|present| present < floor) {
            let mut raised = open.clone();
            raised.floor = Some(floor);
            changes.segments.insert(open.base_offset, Some(raised));
        }
        Ok(changes)
    }

    pub(super) fn finish_recovery(
        &self,
        found: Option<(FileId, SegmentEnd)>,
        start: Offset,
    ) -> Result<Changes, ServiceError> {
        self.check_held()?;
        let head = self.head();
        let begun = EpochStart { epoch: head.epoch, start };
        if head.recovered {
            return match head.epoch_chain.last() {
                Some(last) if *last == begun => Ok(Changes::default()),
                _ => refuse(ErrorCode::Conflict, format!("epoch {} is recovered already", head.epoch)),
            };
        }
        if head.open != found.map(|(file, _)| file) {
            let message = format!("recovery found {:?} open, but {:?} is", found.map(|(file, _)| file), head.open);
            return refuse(ErrorCode::Conflict, message);
        }
        let mut changes = match found {
            Some((file, end)) => self.seal(file, end)?,
            None => Changes::default(),
        };
        let mut after = changes.head.take().unwrap_or_else(|| head.clone());
        if start != after.sealed_end {
            let message = format!("epoch {} cannot start at {start}: the log ends at {}", head.epoch, after.sealed_end);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if let Some(last) = head.epoch_chain.last()
            && start < last.start
        {
            let message = format!("epoch {} cannot start at {start}, before epoch {}", head.epoch, last.epoch);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        after.epoch_chain.push(begun);
        bound_chain(&mut after.epoch_chain);
        after.recovered = true;
        changes.head = Some(after);
        Ok(changes)
    }

    pub(super) fn release(&self) -> Result<Changes, ServiceError> {
        let head = self.head();
        if head.owner.is_none() {
            return Ok(Changes::default());
        }
        if let Some(open) = head.open {
            return refuse(ErrorCode::Conflict, format!("{open} is still open: seal it first"));
        }
        let head = PartitionHead { owner: None, recovered: false, ..head.clone() };
        Ok(Changes { head: Some(head), ..Changes::default() })
    }
}

/// Drops epochs that wrote nothing first: an answer about one of them is the same without its entry.
fn bound_chain(chain: &mut Vec<EpochStart>) {
    if chain.len() <= MAX_EPOCH_CHAIN {
        return;
    }
    let next_starts: Vec<_> = chain.iter().skip(1).map(|entry| entry.start).chain([Offset(u64::MAX)]).collect();
    let mut next_start = next_starts.into_iter();
    chain.retain(|entry| next_start.next() != Some(entry.start));
    let excess = chain.len().saturating_sub(MAX_EPOCH_CHAIN);
    chain.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::Epoch;

    fn chain(starts: impl Iterator<Item = u64>) -> Vec<EpochStart> {
        starts.zip(1..).map(|(start, epoch)| EpochStart { epoch: Epoch(epoch), start: Offset(start) }).collect()
    }

    #[test]
    fn a_long_chain_loses_epochs_that_wrote_nothing() {
        let mut idle = chain(std::iter::repeat_n(7, MAX_EPOCH_CHAIN + 1));
        bound_chain(&mut idle);
        assert_eq!(idle, [EpochStart { epoch: Epoch(MAX_EPOCH_CHAIN as u32 + 1), start: Offset(7) }]);
    }

    #[test]
    fn a_long_chain_of_busy_epochs_loses_the_oldest() {
        let mut busy = chain(0..MAX_EPOCH_CHAIN as u64 + 3);
        bound_chain(&mut busy);
        assert_eq!(busy.len(), MAX_EPOCH_CHAIN);
        assert_eq!(busy[0].start, Offset(3));
    }
}
