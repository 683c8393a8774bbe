//! Responses of every request and version: the frame, its header, and a body that reads back as it was.

use bmq_kafka::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
    SnapshotId,
};
use bmq_kafka::messages::{BrokerId, FetchResponse, ProducerId, TopicName};
use bmq_kafka::supported::{SUPPORTED, find};
use bmq_kafka::{ApiKey, EncodeError, ResponseFrame, ResponseKind, StrBytes, Uuid, encode_response};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const CORRELATION_ID: i32 = 0x0102_0304;

macro_rules! empty_responses {
    ($($key:ident)*) => { [$((ApiKey::$key, ResponseKind::$key(Default::default()))),*] };
}

fn empty_response(key: ApiKey) -> ResponseKind {
    let responses = empty_responses!(
        Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup
        SyncGroup DescribeGroups ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
        OffsetForLeaderEpoch DescribeConfigs DescribeLogDirs CreatePartitions DeleteGroups IncrementalAlterConfigs
        OffsetDelete DescribeCluster DescribeProducers ConsumerGroupHeartbeat ConsumerGroupDescribe
        DescribeTopicPartitions
    );
    responses.into_iter().find(|(known, _)| *known == key).expect("every supported request is in the list").1
}

/// Takes length and header off; the rest is the body.
fn body_of(frame: &ResponseFrame, key: ApiKey, version: i16) -> Bytes {
    let bytes = Bytes::from(frame.parts.concat());
    assert_eq!(bytes.len(), frame.len());
    assert_eq!(bytes[..4], (bytes.len() as i32 - 4).to_be_bytes());
    assert_eq!(bytes[4..8], CORRELATION_ID.to_be_bytes());
    let tagged_fields = usize::from(key.response_header_version(version) == 1);
    assert_eq!(bytes[8..8 + tagged_fields], [0][..tagged_fields]);
    bytes.slice(8 + tagged_fields..)
}

#[test]
fn every_response_of_every_version_reads_back() {
    for api in &SUPPORTED {
        for version in api.min_version..=api.max_version {
            let response = empty_response(api.key);
            let frame = encode_response(CORRELATION_ID, version, response.clone()).unwrap();
            let mut body = body_of(&frame, api.key, version);
            assert_eq!(
                ResponseKind::decode(api.key, &mut body, version).unwrap(),
                response,
                "{:?} v{version}",
                api.key
            );
            assert!(body.is_empty(), "{:?} v{version}", api.key);
        }
    }
}

#[test]
fn an_api_versions_response_has_the_oldest_header_always() {
    let api = find(ApiKey::ApiVersions as i16).unwrap();
    for version in api.min_version..=api.max_version {
        let frame = encode_response(CORRELATION_ID, version, empty_response(api.key)).unwrap();
        assert_eq!(frame.parts.concat()[8..10], [0, 0], "version {version}: the error code follows at once");
    }
}

fn partition(version: i16) -> impl Strategy<Value = PartitionData> {
    let offsets = (any::<i32>(), any::<i16>(), any::<i64>(), any::<i64>(), any::<i64>());
    let aborted = option::of(vec((any::<i64>(), any::<i64>()), 0..3));
    let records = option::of(vec(any::<u8>(), 0..300));
    let tagged = (option::of(0..9_i32), option::of(0..9_i32), option::of(0..9_i32));
    (offsets, aborted, records, tagged, any::<i32>()).prop_map(move |(offsets, aborted, records, tagged, replica)| {
        let (partition, error_code, high_watermark, last_stable_offset, log_start_offset) = offsets;
        let aborted = aborted.map(|aborted| {
            let one = |(producer, first): (i64, i64)| {
                AbortedTransaction::default().with_producer_id(ProducerId(producer)).with_first_offset(first)
            };
            aborted.into_iter().map(one).collect()
        });
        let mut data = PartitionData::default()
            .with_partition_index(partition)
            .with_error_code(error_code)
            .with_high_watermark(high_watermark)
            .with_last_stable_offset(last_stable_offset)
            .with_log_start_offset(log_start_offset)
            .with_aborted_transactions(aborted)
            .with_records(records.map(Bytes::from));
        if version >= 11 {
            data.preferred_read_replica = BrokerId(replica);
        }
        if version >= 12 {
            let (diverging, leader, snapshot) = tagged;
            if let Some(epoch) = diverging {
                data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch).with_end_offset(7);
            }
            if let Some(epoch) = leader {
                data.current_leader = LeaderIdAndEpoch::default().with_leader_id(BrokerId(1)).with_leader_epoch(epoch);
            }
            if let Some(epoch) = snapshot {
                data.snapshot_id = SnapshotId::default().with_epoch(epoch).with_end_offset(8);
            }
        }
        data
    })
}

fn topic(version: i16) -> impl Strategy<Value = FetchableTopicResponse> {
    ("[a-z]{0,200}", any::<u128>(), vec(partition(version), 0..4)).prop_map(move |(name, id, partitions)| {
        let topic = FetchableTopicResponse::default().with_partitions(partitions);
        match version {
            13.. => topic.with_topic_id(Uuid::from_u128(id)),
            _ => topic.with_topic(TopicName(StrBytes::from_string(name))),
        }
    })
}

fn fetch_response(version: i16) -> impl Strategy<Value = FetchResponse> {
    let endpoints = vec((any::<i32>(), "[a-z.]{0,40}", option::of("[a-z]{1,9}")), 0..3);
    (any::<i32>(), any::<i16>(), vec(topic(version), 0..4), endpoints).prop_map(
        move |(number, error_code, topics, endpoints)| {
            let mut response = FetchResponse::default().with_throttle_time_ms(number).with_responses(topics);
            if version >= 7 {
                response = response.with_error_code(error_code).with_session_id(number ^ 1);
            }
            if version >= 16 {
                let one = |(id, host, rack): (i32, String, Option<String>)| {
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(id))
                        .with_host(StrBytes::from_string(host))
                        .with_port(9092)
                        .with_rack(rack.map(StrBytes::from_string))
                };
                response.node_endpoints = endpoints.into_iter().map(one).collect();
            }
            response
        },
    )
}

proptest! {
    /// Our own encoder of Fetch against that of the message crate, and its records against being copied.
    #[test]
    fn a_fetch_response_is_what_the_message_crate_makes_of_it(
        (version, response) in (4..=18_i16).prop_flat_map(|version| (Just(version), fetch_response(version)))
    ) {
        let response = ResponseKind::Fetch(response);
        let frame = encode_response(CORRELATION_ID, version, response.clone()).unwrap();
        let mut expected = BytesMut::new();
        response.encode(&mut expected, version).unwrap();
        prop_assert_eq!(&body_of(&frame, ApiKey::Fetch, version)[..], &expected[..]);

        let ResponseKind::Fetch(response) = response else { unreachable!("made above") };
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        for records in partitions.filter_map(|partition| partition.records.as_ref()).filter(|records| !records.is_empty()) {
            prop_assert!(frame.parts.iter().any(|part| part.as_ptr() == records.as_ptr() && part.len() == records.len()));
        }
    }
}

#[test]
fn what_a_version_cannot_say_is_refused() {
    let encode = |version, response: FetchResponse| encode_response(1, version, ResponseKind::Fetch(response));
    let with_session = FetchResponse::default().with_session_id(1);
    assert!(matches!(encode(6, with_session.clone()), Err(EncodeError::Unencodable { version: 6, .. })));
    assert!(encode(7, with_session).is_ok());
    let topic = FetchableTopicResponse::default().with_topic(TopicName(StrBytes::from_string("x".repeat(1 << 15))));
    assert_eq!(encode(4, FetchResponse::default().with_responses(vec![topic])), Err(EncodeError::TooLong(1 << 15)));
}
