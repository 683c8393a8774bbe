//! The `Admin` service: topics and the cluster.

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::meta::{
    ConfigChange, ConfigChanges, CreateTopic, NodeKind, PartitionView, SessionRecord, TopicConfig, TopicRecord,
    TopicState,
};
use bmq_proto::rpc::status::to_public_status;
use bmq_proto::v1::admin_server::Admin;
use bmq_proto::{PartitionId, ServiceError, TopicPartition, v1};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, groups, invalid};
use crate::directory::{check_topic_name, unknown_topic};
use crate::topic_admin::Mode;

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

    async fn alter_topic(&self, request: Request<v1::AlterTopicRequest>) -> Result<Response<v1::Topic>, Status> {
        answer(self.alter(request.into_inner()).await)
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

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        answer(groups::list(&self.0).await)
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        answer(groups::describe(&self.0, &request.get_ref().group).await)
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        answer(groups::delete(&self.0, &request.get_ref().group).await)
    }

    async fn set_group_offsets(
        &self,
        request: Request<v1::SetGroupOffsetsRequest>,
    ) -> Result<Response<v1::SetGroupOffsetsResponse>, Status> {
        answer(groups::set_offsets(&self.0, request.into_inner()).await)
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
        let v1::CreateTopicRequest { name, partitions, config, validate_only } = request;
        let (create, mode) = (CreateTopic { name, partitions, config }, Mode::validate_only(validate_only));
        let topic = topic_message(self.0.create_topic(create, mode, Instant::now()).await?);
        Ok(if validate_only { v1::Topic { topic_id: String::new(), ..topic } } else { topic })
    }

    async fn delete(&self, request: v1::DeleteTopicRequest) -> Result<v1::DeleteTopicResponse, ServiceError> {
        self.0.delete_topic(&request.name).await?;
        Ok(v1::DeleteTopicResponse {})
    }

    async fn alter(&self, request: v1::AlterTopicRequest) -> Result<v1::Topic, ServiceError> {
        let v1::AlterTopicRequest { name, partitions, set_config, delete_config, validate_only } = request;
        let changes = config_changes(set_config, delete_config)?;
        // Both are checked before either is done; without changes this is only a read.
        let altered = self.0.alter_topic_config(&name, changes.clone(), Mode::ValidateOnly).await?;
        let topic = match partitions {
            Some(total) => {
                let grown = self.0.add_partitions(&name, total, Mode::ValidateOnly).await?;
                TopicRecord { partitions: grown.partitions, ..altered }
            }
            None => altered,
        };
        if validate_only {
            return Ok(topic_message(topic));
        }
        if let Some(total) = partitions {
            self.0.add_partitions(&name, total, Mode::Apply).await?;
        }
        match self.0.alter_topic_config(&name, changes, Mode::Apply).await {
            Ok(topic) => Ok(topic_message(topic)),
            Err(error) if partitions.is_some() => Err(ServiceError::unknown(error.code, error.message)),
            Err(error) => Err(error),
        }
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

fn config_changes(set: TopicConfig, delete: Vec<String>) -> Result<ConfigChanges, ServiceError> {
    let mut changes: ConfigChanges = set.into_iter().map(|(name, value)| (name, ConfigChange::Set(value))).collect();
    for name in delete {
        if let Some(ConfigChange::Set(_)) = changes.insert(name.clone(), ConfigChange::Delete) {
            return Err(invalid(format!("{name} is to be both set and deleted")));
        }
    }
    Ok(changes)
}

fn topic_message(topic: TopicRecord) -> v1::Topic {
    let internal = topic.is_internal();
    let TopicRecord { id, name, partitions, config, state } = topic;
    let deleting = state == TopicState::Deleting;
    v1::Topic { name, topic_id: id.to_string(), partitions, config, deleting, internal }
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
