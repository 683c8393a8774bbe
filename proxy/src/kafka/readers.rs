//! The readers of one connection: kept between its fetches, so that one that reads on does not search its place anew.
//!
//! Bound: a reader that was not used for a while is dropped, and with it its share in following the partition's tail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bmq_proto::TopicPartition;
use tokio::time::Instant;

use crate::fetch::{Fetcher, Reader};

/// How long an unused reader is kept, and how often it is looked for such.
const KEPT: Duration = Duration::from_secs(30);

/// See the head of the file.
#[derive(Default)]
pub struct Readers {
    readers: HashMap<TopicPartition, (Instant, Reader)>,
    swept: Option<Instant>,
}

impl Readers {
    /// The partition's reader; another if it is in use already.
    pub fn take(&mut self, fetcher: &Arc<Fetcher>, partition: TopicPartition) -> Reader {
        let kept = self.readers.remove(&partition).map(|(_, reader)| reader);
        kept.unwrap_or_else(|| Reader::new(Arc::clone(fetcher), partition))
    }

    /// Keeps a reader for the next fetch.
    pub fn put_back(&mut self, partition: TopicPartition, reader: Reader, now: Instant) {
        self.readers.insert(partition, (now, reader));
    }

    /// Drops what was not used for a while.
    pub fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now - swept < KEPT) {
            return;
        }
        self.swept = Some(now);
        self.readers.retain(|_, (used, _)| now - *used < KEPT);
        self.readers.shrink_to(2 * self.readers.len());
    }
}
