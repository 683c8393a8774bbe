//! What of Kafka is done: the one table of requests and their versions.
//!
//! A request that is not here is neither advertised nor accepted, and one that is here is done whole at each version.
//! The newest versions are those of Kafka 4.1; the oldest go as far back as the messages are known, for the sake of
//! old clients. Records are only taken and given as v2 batches: Produce from 3 and Fetch from 4 on.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::schema::{self, Schema};

/// One request that is done, from its oldest version to its newest.
#[derive(Debug)]
pub struct SupportedApi {
    pub key: ApiKey,
    pub min_version: i16,
    pub max_version: i16,
    pub(crate) schema: &'static Schema,
}

const fn api(key: ApiKey, min_version: i16, max_version: i16, schema: &'static Schema) -> SupportedApi {
    SupportedApi { key, min_version, max_version, schema }
}

/// In the order of their numbers.
#[rustfmt::skip]
pub static SUPPORTED: [SupportedApi; 30] = [
    api(ApiKey::Produce, 3, 13, &schema::PRODUCE),
    api(ApiKey::Fetch, 4, 18, &schema::FETCH),
    api(ApiKey::ListOffsets, 1, 10, &schema::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &schema::METADATA),
    api(ApiKey::OffsetCommit, 2, 9, &schema::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 9, &schema::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 6, &schema::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 9, &schema::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 4, &schema::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 5, &schema::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 5, &schema::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 6, &schema::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 5, &schema::LIST_GROUPS),
    api(ApiKey::ApiVersions, 0, 4, &schema::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &schema::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &schema::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &schema::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0, 5, &schema::INIT_PRODUCER_ID),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, &schema::OFFSET_FOR_LEADER_EPOCH),
    api(ApiKey::DescribeConfigs, 1, 4, &schema::DESCRIBE_CONFIGS),
    api(ApiKey::DescribeLogDirs, 1, 4, &schema::DESCRIBE_LOG_DIRS),
    api(ApiKey::CreatePartitions, 0, 3, &schema::CREATE_PARTITIONS),
    api(ApiKey::DeleteGroups, 0, 2, &schema::DELETE_GROUPS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &schema::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::OffsetDelete, 0, 0, &schema::OFFSET_DELETE),
    api(ApiKey::DescribeCluster, 0, 2, &schema::DESCRIBE_CLUSTER),
    api(ApiKey::DescribeProducers, 0, 0, &schema::DESCRIBE_PRODUCERS),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1, &schema::CONSUMER_GROUP_HEARTBEAT),
    api(ApiKey::ConsumerGroupDescribe, 0, 1, &schema::CONSUMER_GROUP_DESCRIBE),
    api(ApiKey::DescribeTopicPartitions, 0, 0, &schema::DESCRIBE_TOPIC_PARTITIONS),
];

/// The entry of a request's number.
pub fn find(api_key: i16) -> Option<&'static SupportedApi> {
    SUPPORTED.binary_search_by_key(&api_key, |api| api.key as i16).ok().map(|at| &SUPPORTED[at])
}

impl SupportedApi {
    pub fn supports(&self, version: i16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }

    /// What clients are told. Produce 0 to 2 are named although they are refused, as Kafka 4 does: librdkafka takes
    /// their absence for a broker that cannot compress (KAFKA-18659).
    pub fn advertised(&self) -> ApiVersion {
        let min_version = if self.key == ApiKey::Produce { 0 } else { self.min_version };
        ApiVersion::default()
            .with_api_key(self.key as i16)
            .with_min_version(min_version)
            .with_max_version(self.max_version)
    }
}

/// The list of an ApiVersions answer.
pub fn advertised() -> Vec<ApiVersion> {
    SUPPORTED.iter().map(SupportedApi::advertised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_within_what_the_decoder_knows() {
        assert!(SUPPORTED.is_sorted_by_key(|api| api.key as i16));
        for api in &SUPPORTED {
            let known = api.key.valid_versions();
            assert!(known.min <= api.min_version && api.max_version <= known.max, "{:?}", api.key);
            assert_eq!(find(api.key as i16).map(|found| found.key), Some(api.key));
        }
        assert!(find(ApiKey::SaslHandshake as i16).is_none());
        assert!(find(-1).is_none());
    }

    #[test]
    fn schemas_become_flexible_where_the_decoder_does() {
        for api in &SUPPORTED {
            for version in api.min_version..=api.max_version {
                let flexible = api.key.request_header_version(version) == 2;
                assert_eq!(api.schema.is_flexible(version), flexible, "{:?} v{version}", api.key);
            }
        }
    }
}
