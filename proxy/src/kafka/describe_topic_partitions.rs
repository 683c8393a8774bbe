//! `DescribeTopicPartitions`: topics and their partitions, page by page (KIP-966).

use bmq_kafka::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use bmq_kafka::messages::{BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use bmq_kafka::{ResponseError, StrBytes, Uuid};
use bmq_proto::meta::TopicRecord;
use bmq_proto::{ErrorCode, TopicPartition};

use super::RequestContext;
use super::authorized_operations::of_topic;
use super::brokers::{Broker, brokers, leader};
use super::metadata::leader_epoch;

/// The most partitions of one answer, whatever the client allows.
const MAX_PARTITIONS: usize = 2_000;

pub async fn handle(
    context: &RequestContext<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MAX_PARTITIONS);
    let mut page = Page { brokers: brokers(context), left: limit, topics: Vec::new(), next: None };
    let mut names = match request.topics.is_empty() {
        true => context.api.directory.topics().iter().map(|topic| topic.name.clone()).collect(),
        false => request.topics.iter().map(|topic| topic.name.to_string()).collect::<Vec<_>>(),
    };
    names.sort_unstable();
    names.dedup();
    let (from_topic, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.to_string(), u32::try_from(cursor.partition_index).unwrap_or(0)),
        None => (String::new(), 0),
    };
    for name in names.into_iter().filter(|name| *name >= from_topic) {
        if page.left == 0 {
            page.next = Some(Cursor::default().with_topic_name(topic_name(&name)).with_partition_index(0));
            break;
        }
        let from = if name == from_topic { from_partition } else { 0 };
        if !page.add(context, &name, from).await {
            break;
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(page.topics).with_next_cursor(page.next)
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// An answer that fills up.
struct Page {
    brokers: Vec<Broker>,
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl Page {
    /// Adds a topic's partitions from one on; false if not all had place, and the page ends there.
    async fn add(&mut self, context: &RequestContext<'_>, name: &str, from: u32) -> bool {
        let answer = DescribeTopicPartitionsResponseTopic::default().with_name(Some(topic_name(name)));
        let topic = match context.api.directory.topic(name).await {
            Ok(topic) => topic,
            Err(error) => {
                let code = match error.code {
                    ErrorCode::InvalidArgument => ResponseError::InvalidTopicException,
                    _ => bmq_kafka::error::read_code(&error),
                };
                self.left -= 1;
                let none = super::authorized_operations::NOT_ASKED;
                self.topics.push(answer.with_error_code(code.code()).with_topic_authorized_operations(none));
                return true;
            }
        };
        let partitions: Vec<_> = topic.partition_ids().skip(from as usize).take(self.left).collect();
        let end = u32::try_from(partitions.len()).map_or(u32::MAX, |taken| from.saturating_add(taken));
        self.left -= partitions.len();
        let partitions = partitions.into_iter().map(|partition| self.partition(context, partition)).collect();
        self.topics.push(of_topic_record(answer, &topic).with_partitions(partitions));
        let complete = end >= topic.partitions;
        if !complete {
            let cursor = Cursor::default().with_topic_name(topic_name(name)).with_partition_index(end as i32);
            self.next = Some(cursor);
        }
        complete
    }

    fn partition(
        &self,
        context: &RequestContext<'_>,
        partition: TopicPartition,
    ) -> DescribeTopicPartitionsResponsePartition {
        let answer = DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(partition.partition.0 as i32)
            .with_leader_epoch(leader_epoch(context.api.directory.epoch(partition)))
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()));
        match leader(&self.brokers, partition) {
            Some(leader) => answer
                .with_leader_id(leader.id())
                .with_replica_nodes(vec![leader.id()])
                .with_isr_nodes(vec![leader.id()]),
            None => answer.with_leader_id(BrokerId(-1)).with_error_code(ResponseError::LeaderNotAvailable.code()),
        }
    }
}

fn of_topic_record(
    answer: DescribeTopicPartitionsResponseTopic,
    topic: &TopicRecord,
) -> DescribeTopicPartitionsResponseTopic {
    answer
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_is_internal(topic.is_internal())
        .with_topic_authorized_operations(of_topic(true))
}
