//! `Send`: one batch of records, for scripts.

use std::sync::Arc;

use bmq_proto::murmur2::partition_for_key;
use bmq_proto::{PartitionId, ServiceError, v1};

use super::Api;
use super::messaging::ack_level;
use super::pack::pack;
use super::produce::within_budget;
use crate::append::{AppendChannel, Ticket};

pub async fn send(api: &Api, request: v1::SendRequest) -> Result<v1::SendResponse, ServiceError> {
    let v1::SendRequest { topic, partition, ack, records } = request;
    let ack = ack_level(ack)?;
    let batch = pack(&records, api.config.produce.max_batch_bytes.0 as usize, &*api.clock)?;
    let number = match partition {
        Some(number) => number,
        None => choose_partition(api, &topic, &records).await?.0,
    };
    let place = api.directory.partition(&topic, number).await?;

    let batch = within_budget(&api.produce_budget, batch).await;
    let mut channel = AppendChannel::new(Arc::clone(&api.appends), ack);
    channel.push(place, Ticket(0), batch, false);
    let reply = channel.replies().await.pop().expect("replies come at least one at a time");
    let appended = reply.result?;
    Ok(v1::SendResponse { partition: number, base_offset: appended.base_offset.0 })
}

/// The partition of the first record's key, or any.
async fn choose_partition(api: &Api, topic: &str, records: &[v1::Record]) -> Result<PartitionId, ServiceError> {
    let count = api.directory.topic(topic).await?.partitions;
    match records.first().and_then(|record| record.key.as_ref()) {
        Some(key) => Ok(partition_for_key(key, count)),
        None => Ok(PartitionId(api.random.below(count.into()) as u32)),
    }
}
