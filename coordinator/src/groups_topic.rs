//! The topic that holds the groups: the first coordinator of a cluster creates it.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::Backoff;
use bmq_common::rng::Random;
use bmq_proto::ErrorCode;
use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::{CreateTopic, MetaService, TopicConfig};

/// Sees to it that the topic exists. Several coordinators may do so at once: one creates it, all find it.
pub async fn ensure_groups_topic(meta: Arc<dyn MetaService>, partitions: u32, random: Random) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let present = meta.topic(GROUPS_TOPIC).await;
        let outcome = match present {
            Ok(Some(_)) => return,
            Ok(None) => {
                let (name, config) = (GROUPS_TOPIC.to_owned(), TopicConfig::new());
                meta.create_topic(CreateTopic { name, partitions, config }).await.map(drop)
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => {
                return tracing::info!(topic = GROUPS_TOPIC, partitions, "created the topic that holds the groups");
            }
            // Somebody else was quicker: look again.
            Err(error) if error.code == ErrorCode::TopicExists => {}
            Err(error) => tracing::warn!(%error, topic = GROUPS_TOPIC, "the topic is not there yet, trying again"),
        }
        tokio::time::sleep(backoff.next(&random)).await;
    }
}
