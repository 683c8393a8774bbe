//! The read of a shard's head that its answers wait for.

use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_proto::ServiceError;
use bmq_proto::meta::PartitionHead;

use super::driver::ShardContext;

/// How long a metadata service that does not answer is asked again before callers hear of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads the head; what comes back was read after the call.
pub fn read_head(context: &ShardContext) -> impl Future<Output = Result<PartitionHead, ServiceError>> + Send + use<> {
    let (meta, clock, random, partition) =
        (context.meta.clone(), context.clock.clone(), context.random.clone(), context.partition);
    async move {
        let began = clock.now();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        loop {
            match meta.head(partition).await {
                Ok(head) => return Ok(head),
                Err(error) if clock.now().saturating_since(began) >= PATIENCE => return Err(error),
                Err(_) => tokio::time::sleep(backoff.next(&random)).await,
            }
        }
    }
}
