//! `DescribeLogDirs`: how many bytes the partitions have that this proxy leads. There is one folder, the store's.

use std::collections::BTreeMap;

use bmq_kafka::StrBytes;
use bmq_kafka::error::admin_code;
use bmq_kafka::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use bmq_kafka::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use bmq_proto::{ServiceError, TopicPartition};
use futures::FutureExt;

use super::RequestContext;
use super::brokers::{brokers, leader};
use crate::several::several;

/// Partitions that are looked at together.
const PARTITIONS_AT_ONCE: usize = 32;

/// What the store's folder is called here: its real place means nothing to a client.
const FOLDER: &str = "store";

/// How much the store holds and could hold is not told.
const UNKNOWN: i64 = -1;

pub async fn handle(context: &RequestContext<'_>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let wanted = wanted(context, request);
    let describe = |(topic, partition)| describe(context, topic, partition).boxed();
    let described = several(wanted, PARTITIONS_AT_ONCE, describe).await;
    let described = match described.into_iter().collect::<Result<Vec<_>, ServiceError>>() {
        Ok(described) => described,
        Err(error) => return DescribeLogDirsResponse::default().with_error_code(admin_code(&error).code()),
    };
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (topic, partition) in described {
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(name, partitions)| {
        let name = TopicName(StrBytes::from_string(name));
        DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
    };
    let folder = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_static_str(FOLDER))
        .with_topics(topics.into_iter().map(topic).collect())
        .with_total_bytes(UNKNOWN)
        .with_usable_bytes(UNKNOWN);
    DescribeLogDirsResponse::default().with_results(vec![folder])
}

/// The partitions that are asked about and led by this proxy; those that there are not are left out, as Kafka does.
fn wanted(context: &RequestContext<'_>, request: DescribeLogDirsRequest) -> Vec<(String, TopicPartition)> {
    let (brokers, own) = (brokers(context), context.api.config.node());
    let directory = &context.api.directory;
    let mut wanted = Vec::new();
    match request.topics {
        None => {
            for topic in directory.topics() {
                wanted.extend(topic.partition_ids().map(|partition| (topic.name.clone(), partition)));
            }
        }
        Some(topics) => {
            for asked in topics {
                let Some(topic) = directory.known_topic(&asked.topic) else { continue };
                let is_asked = |it: &TopicPartition| asked.partitions.contains(&(it.partition.0 as i32));
                let partitions = topic.partition_ids().filter(is_asked);
                wanted.extend(partitions.map(|partition| (topic.name.clone(), partition)));
            }
        }
    }
    wanted.retain(|(_, partition)| leader(&brokers, *partition).is_some_and(|leader| leader.node == own));
    wanted
}

async fn describe(
    context: &RequestContext<'_>,
    topic: String,
    partition: TopicPartition,
) -> Result<(String, DescribeLogDirsPartition), ServiceError> {
    let view = context.api.ask_meta(context.api.meta.partition(partition)).await?;
    // How long the open segment is only its owner knows.
    let sealed = view.segments.iter().filter_map(|it| Some(it.end()?.position.since(it.start_position)));
    let bytes: u64 = sealed.sum();
    let described = DescribeLogDirsPartition::default()
        .with_partition_index(partition.partition.0 as i32)
        .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
    Ok((topic, described))
}
