//! Topics, partitions' bounds, and the cluster.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bmq_proto::ErrorCode;
use bmq_proto::v1::admin_client::AdminClient;
use bmq_proto::v1::messaging_client::MessagingClient;
use bmq_proto::v1::{self, Node, PartitionBounds, PartitionInfo, Topic};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::Error;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One topic and its partitions.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicDescription {
    /// The topic itself.
    pub topic: Topic,
    /// Its partitions, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// The cluster and the nodes that are alive.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// Its nodes, as far as is known.
    pub nodes: Vec<Node>,
}

/// Creates, deletes, lists and describes. Nothing is retried: an error says whether that would help.
#[derive(Debug, Clone)]
pub struct Admin {
    admin: AdminClient<Channel>,
    messaging: MessagingClient<Channel>,
}

impl Admin {
    pub(crate) fn new(admin: AdminClient<Channel>, messaging: MessagingClient<Channel>) -> Self {
        Self { admin, messaging }
    }

    /// Creates a topic. `TopicExists` if the name is taken, also by a topic that is still being deleted.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: BTreeMap<String, String>,
    ) -> Result<Topic, Error> {
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config };
        answer(self.admin.clone().create_topic(request)).await
    }

    /// Deletes a topic and its records, beginning now. `UnknownTopic` if there is none.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = v1::DeleteTopicRequest { name: name.to_owned() };
        answer(self.admin.clone().delete_topic(request)).await?;
        Ok(())
    }

    /// All topics, by name.
    pub async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        Ok(read(self.admin.clone().list_topics(v1::ListTopicsRequest {})).await?.topics)
    }

    /// One topic and its partitions. `UnknownTopic` if there is none.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let request = v1::DescribeTopicRequest { name: name.to_owned() };
        let described = read(self.admin.clone().describe_topic(request)).await?;
        let topic = described.topic.ok_or_else(|| Error::protocol("the server described no topic").of_a_read())?;
        Ok(TopicDescription { topic, partitions: described.partitions })
    }

    /// Where partitions of a topic begin and end; all of them if `partitions` is empty.
    pub async fn list_offsets(&self, topic: &str, partitions: &[u32]) -> Result<Vec<PartitionBounds>, Error> {
        let request = v1::ListOffsetsRequest { topic: topic.to_owned(), partitions: partitions.to_vec() };
        Ok(read(self.messaging.clone().list_offsets(request)).await?.partitions)
    }

    /// The cluster's id and its nodes.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, Error> {
        let described = read(self.admin.clone().describe_cluster(v1::DescribeClusterRequest {})).await?;
        Ok(ClusterDescription { cluster_id: described.cluster_id, nodes: described.nodes })
    }
}

/// The answer to a call that changes nothing.
async fn read<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    answer(call).await.map_err(Error::of_a_read)
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Error::unknown(ErrorCode::Timeout, format!("no answer within {DEADLINE:?}"))),
    }
}
