//! Topics, partitions' bounds, consumer groups, and the cluster.

mod groups;

pub use groups::{GroupDescription, Seek, SeekTo};

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

/// What shall become of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicChanges {
    /// How many partitions it shall have; as many as now without it. They are never taken away.
    pub partitions: Option<u32>,
    /// Settings and their new values.
    pub set_config: BTreeMap<String, String>,
    /// Settings that go back to their defaults.
    pub delete_config: Vec<String>,
    /// Check everything, change nothing.
    pub validate_only: bool,
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
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config, validate_only: false };
        answer(self.admin.clone().create_topic(request)).await
    }

    /// Says whether such a topic could be created now, without creating it: `Ok` or the error that would come.
    pub async fn validate_topic(
        &self,
        name: &str,
        partitions: u32,
        config: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, config, validate_only: true };
        read(self.admin.clone().create_topic(request)).await?;
        Ok(())
    }

    /// Changes a topic; all is checked before anything is changed. Returns the topic as it is then, or would be.
    pub async fn alter_topic(&self, name: &str, changes: TopicChanges) -> Result<Topic, Error> {
        let TopicChanges { partitions, set_config, delete_config, validate_only } = changes;
        let name = name.to_owned();
        let request = v1::AlterTopicRequest { name, partitions, set_config, delete_config, validate_only };
        answer(self.admin.clone().alter_topic(request)).await
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

    /// The first records with a timestamp (milliseconds since 1970) or a later one; of all partitions if none is named.
    pub async fn find_offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        timestamp_ms: i64,
    ) -> Result<Vec<v1::FoundOffset>, Error> {
        let partitions = partitions.to_vec();
        let request = v1::FindOffsetsRequest { topic: topic.to_owned(), partitions, timestamp_ms };
        Ok(read(self.messaging.clone().find_offsets(request)).await?.partitions)
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
