//! Producer ids for clients that ask for one: taken from the metadata service in blocks.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_proto::meta::MetaService;
use bmq_proto::{ErrorCode, ServiceError};
use tokio::sync::Mutex;

/// Ids taken at once. Those of a block that a proxy did not give out when it ended are never used.
const BLOCK: u32 = 256;

/// See the head of the file.
pub struct ProducerIds {
    meta: Arc<dyn MetaService>,
    deadline: Duration,
    block: Mutex<Range<u64>>,
}

impl ProducerIds {
    pub fn new(meta: Arc<dyn MetaService>, deadline: Duration) -> Self {
        Self { meta, deadline, block: Mutex::new(0..0) }
    }

    /// An id that nobody else has or had.
    pub async fn next(&self) -> Result<i64, ServiceError> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let call = self.meta.allocate_producer_ids(BLOCK);
            let late = |_| ServiceError::not_applied(ErrorCode::Unavailable, "no producer id could be had in time");
            let first = with_deadline("the metadata service", self.deadline, call).await.map_err(late)??;
            *block = first..first + u64::from(BLOCK);
        }
        let id = block.next().expect("the block was just filled");
        i64::try_from(id).map_err(|_| ServiceError::not_applied(ErrorCode::Internal, "producer ids are used up"))
    }
}
