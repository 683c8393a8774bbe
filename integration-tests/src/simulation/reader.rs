//! Those who read: a follower of each partition's tail, and a reader of closed segments.

use bmq_partition::machine::Published;
use bmq_proto::{Epoch, Offset};
use bmq_storage::SegmentIndex;
use bytes::Bytes;

use super::env::Env;

/// Follows one partition, over all its owners.
#[derive(Debug, Default)]
pub struct Follower {
    epoch: Epoch,
    next: Offset,
    high_watermark: Offset,
    /// When the last step arrives: a subscription keeps its order.
    pub last_arrival: u64,
}

impl Follower {
    /// Takes a step of a subscription; answers of an older epoch than was seen are dropped.
    pub fn take(&mut self, published: &Published, env: &mut Env) {
        let bounds = published.bounds;
        if bounds.epoch < self.epoch {
            return;
        }
        self.epoch = bounds.epoch;
        if bounds.high_watermark < self.high_watermark {
            let (new, old) = (bounds.high_watermark, self.high_watermark);
            env.violated(|| format!("rule 5: a follower saw the high watermark go back from {old} to {new}"));
        }
        self.high_watermark = bounds.high_watermark;
        for batch in &published.batches {
            if batch.base_offset != self.next {
                env.coverage.hit("reader: gap");
            } else {
                env.coverage.hit("reader: follows");
            }
            self.next = batch.next_offset;
        }
    }
}

/// Whether every chunk of a segment's file is what its index says.
pub fn matches_index(index: &SegmentIndex, content: &Bytes) -> bool {
    (0..index.chunks()).all(|number| {
        let range = index.chunk_range(number);
        let chunk = content.get(range.start.0 as usize..range.end.0 as usize);
        chunk.is_some_and(|chunk| index.check_chunk(number, chunk).is_ok())
    })
}
