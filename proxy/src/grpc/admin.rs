//! The `Admin` service: topics and the cluster.

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::meta::{CreateTopic, NodeKind, PartitionView, SessionRecord, TopicRecord, TopicState};
use bmq_proto::rpc::status::to_public_status;
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::v1::admin_server::Admin;
use bmq_proto::{PartitionId, ServiceError, TopicPartition, v1};
use futures::{StreamExt, TryStreamExt, stream};
use tonic::{Request, Response, Status};

use super::{Api, invalid};
use crate::directory::{check_topic_name, unknown_topic};

/// The most partitions of one topic.
const MAX_PARTITIONS: u32 = 10_000;

/// Partitions that are looked at together for one description.
const DESCRIBED_AT_ONCE: usize = 32;

/// How long an owner is waited for when a partition is described; without its answer the rest is told.
const OWNER_DEADLINE: Duration = Duration::from_secs(2);

/// The service.
#[derive(Clone)]
pub struct AdminApi(pub Arc<Api>);

#[tonic::async_trait]
impl Admin for AdminApi {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::Topic>, Status> {
        answer(self.create(request.into_inner()).await)
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        answer(self.delete(request.into_inner()).await)
    }

    async fn list_topics(
        &self,
        _request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        answer(self.list().await)
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        answer(self.describe(request.into_inner()).await)
    }

    async fn describe_cluster(
        &self,
        _request: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        answer(self.describe_cluster().await)
    }
}

fn answer<T>(result: Result<T, ServiceError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| to_public_status(&error))
}

impl AdminApi {
    async fn create(&self, request: v1::CreateTopicRequest) -> Result<v1::Topic, ServiceError> {
        let v1::CreateTopicRequest { name, partitions, config } = request;
        check_topic_name(&name)?;
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(invalid(format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {partitions}")));
        }
        TopicSettings::parse(&config)?;
        let topic = self.0.ask_meta(self.0.meta.create_topic(CreateTopic { name, partitions, config })).await?;
        let told = topic_message(topic.clone());
        self.0.directory.observe_topic(topic);
        Ok(told)
    }

    async fn delete(&self, request: v1::DeleteTopicRequest) -> Result<v1::DeleteTopicResponse, ServiceError> {
        check_topic_name(&request.name)?;
        self.0.ask_meta(self.0.meta.delete_topic(&request.name)).await?;
        Ok(v1::DeleteTopicResponse {})
    }

    async fn list(&self) -> Result<v1::ListTopicsResponse, ServiceError> {
        let topics = self.0.ask_meta(self.0.meta.list_topics()).await?;
        Ok(v1::ListTopicsResponse { topics: topics.into_iter().map(topic_message).collect() })
    }

    async fn describe(&self, request: v1::DescribeTopicRequest) -> Result<v1::DescribeTopicResponse, ServiceError> {
        check_topic_name(&request.name)?;
        let found = self.0.ask_meta(self.0.meta.topic(&request.name)).await?;
        let topic = found.ok_or_else(|| unknown_topic(format!("there is no topic `{}`", request.name)))?;
        let described = stream::iter(topic.partition_ids()).map(|partition| self.describe_partition(partition));
        let partitions = described.buffered(DESCRIBED_AT_ONCE).try_collect().await?;
        Ok(v1::DescribeTopicResponse { topic: Some(topic_message(topic)), partitions })
    }

    async fn describe_partition(&self, partition: TopicPartition) -> Result<v1::PartitionInfo, ServiceError> {
        let view: PartitionView = self.0.ask_meta(self.0.meta.partition(partition)).await?;
        let PartitionId(number) = partition.partition;
        let owner = self.0.directory.route(partition).borrow().owner.clone();
        let bounds = match owner {
            Some(owner) => tokio::time::timeout(OWNER_DEADLINE, owner.service.bounds(partition)).await.ok(),
            None => None,
        };
        let bounds = bounds.and_then(Result::ok).filter(|bounds| bounds.epoch == view.head.epoch);
        Ok(v1::PartitionInfo {
            partition: number,
            epoch: view.head.epoch.0,
            owner: view.head.owner.map(|owner| owner.node.0),
            log_start: bounds.map(|bounds| bounds.log_start.0),
            high_watermark: bounds.map(|bounds| bounds.high_watermark.0),
            segments: u32::try_from(view.segments.len()).unwrap_or(u32::MAX),
        })
    }

    async fn describe_cluster(&self) -> Result<v1::DescribeClusterResponse, ServiceError> {
        let cluster = self.0.ask_meta(self.0.meta.cluster()).await?;
        let mut sessions = self.0.ask_meta(self.0.meta.list_sessions()).await?;
        sessions.sort_by_key(|session| (session.kind, session.node));
        let nodes = sessions.into_iter().map(node_message).collect();
        Ok(v1::DescribeClusterResponse { cluster_id: cluster.cluster.to_string(), nodes })
    }
}

fn topic_message(topic: TopicRecord) -> v1::Topic {
    let TopicRecord { id, name, partitions, config, state } = topic;
    v1::Topic { name, topic_id: id.to_string(), partitions, config, deleting: state == TopicState::Deleting }
}

fn node_message(session: SessionRecord) -> v1::Node {
    let kind = match session.kind {
        NodeKind::Broker => "broker",
        NodeKind::Proxy => "proxy",
        NodeKind::Controller => "controller",
        NodeKind::Coordinator => "coordinator",
    };
    v1::Node { kind: kind.to_owned(), node_id: session.node.0, address: session.address }
}
