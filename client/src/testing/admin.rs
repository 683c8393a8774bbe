//! The admin half of the fake server.

use std::sync::Arc;

use bmq_proto::rpc::status::to_public_status;
use bmq_proto::v1;
use bmq_proto::v1::admin_server::Admin;
use bmq_proto::{ErrorCode, ServiceError};
use tonic::{Request, Response, Status};

use super::Shared;

pub struct Glue(pub Arc<Shared>);

fn topic(name: String, partitions: u32) -> v1::Topic {
    v1::Topic { topic_id: "0".repeat(32), name, partitions, ..Default::default() }
}

/// It keeps no groups.
fn unknown_group(group: &str) -> Status {
    to_public_status(&ServiceError::not_applied(ErrorCode::UnknownGroup, format!("there is no group {group}")))
}

#[tonic::async_trait]
impl Admin for Glue {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::Topic>, Status> {
        let v1::CreateTopicRequest { name, partitions, .. } = request.into_inner();
        let mut topics = self.0.topics.lock();
        if topics.contains_key(&name) {
            let error = ServiceError::not_applied(ErrorCode::TopicExists, format!("topic {name} exists"));
            return Err(to_public_status(&error));
        }
        topics.insert(name.clone(), partitions);
        Ok(Response::new(topic(name, partitions)))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let name = request.into_inner().name;
        self.0.partition_count(&name).map_err(|error| to_public_status(&error))?;
        self.0.topics.lock().remove(&name);
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn alter_topic(&self, request: Request<v1::AlterTopicRequest>) -> Result<Response<v1::Topic>, Status> {
        let v1::AlterTopicRequest { name, partitions, .. } = request.into_inner();
        let count = self.0.partition_count(&name).map_err(|error| to_public_status(&error))?;
        let count = partitions.unwrap_or(count);
        self.0.topics.lock().insert(name.clone(), count);
        Ok(Response::new(topic(name, count)))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        Ok(Response::new(v1::ListGroupsResponse::default()))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        Err(unknown_group(&request.get_ref().group))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        Err(unknown_group(&request.get_ref().group))
    }

    async fn set_group_offsets(
        &self,
        request: Request<v1::SetGroupOffsetsRequest>,
    ) -> Result<Response<v1::SetGroupOffsetsResponse>, Status> {
        Err(unknown_group(&request.get_ref().group))
    }

    async fn list_topics(&self, _: Request<v1::ListTopicsRequest>) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = self.0.topics.lock();
        let mut topics: Vec<_> = topics.iter().map(|(name, count)| topic(name.clone(), *count)).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name = request.into_inner().name;
        let count = self.0.partition_count(&name).map_err(|error| to_public_status(&error))?;
        let partitions = (0..count).map(|partition| v1::PartitionInfo { partition, ..Default::default() }).collect();
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(topic(name, count)), partitions }))
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        Ok(Response::new(v1::DescribeClusterResponse { cluster_id: "f".repeat(32), nodes: Vec::new() }))
    }
}
