//! Requests read, refused, and answered without being read; the exactness of the schemas.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::schema::generate::{bodies_with_a_wrong_null, request_frame};
use crate::supported::SUPPORTED;
use crate::walk::{Flaw, MAX_ELEMENTS};

fn every_version() -> impl Iterator<Item = (&'static SupportedApi, i16)> {
    SUPPORTED.iter().flat_map(|api| (api.min_version..=api.max_version).map(move |version| (api, version)))
}

fn parse(frame: &[u8]) -> Result<Request, RequestError> {
    parse_request(Bytes::copy_from_slice(frame))
}

/// Encoded again by the message crate.
fn encoded(request: &Request) -> BytesMut {
    let mut bytes = BytesMut::new();
    request.body.encode(&mut bytes, request.version).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The schemas are exact: what they allow is what the message crate reads and writes, byte for byte.
    #[test]
    fn every_request_of_every_version_is_read(entropy in vec(any::<u8>(), 0..400)) {
        for (api, version) in every_version() {
            let (frame, body_start) = request_frame(api, version, &entropy);
            let request = match parse(&frame) {
                Ok(request) => request,
                Err(error) => panic!("{:?} v{version}: {error}: {:?}", api.key, std::error::Error::source(&error)),
            };
            prop_assert_eq!((request.api_key, request.version, request.correlation_id), (api.key, version, 7));
            prop_assert_eq!(request.client_id.as_deref(), Some("me"));
            prop_assert_eq!(&encoded(&request)[..], &frame[body_start..], "{:?} v{}", api.key, version);
        }
    }

    /// Cut anywhere a request is refused, but for ApiVersions; what follows it changes nothing.
    #[test]
    fn no_request_is_read_from_less_than_its_bytes(entropy in vec(any::<u8>(), 0..400), more in vec(0_u8.., 1..9)) {
        for (api, version) in every_version().filter(|(api, _)| api.key != ApiKey::ApiVersions) {
            let (mut frame, _) = request_frame(api, version, &entropy);
            for len in 0..frame.len() {
                prop_assert!(parse(&frame[..len]).is_err(), "{:?} v{version} cut at {len}", api.key);
            }
            let alone = parse(&frame);
            frame.extend(&more);
            prop_assert_eq!(parse(&frame), alone, "{:?} v{} and more", api.key, version);
        }
    }

    #[test]
    fn random_bytes_are_refused_or_read(key in 0..80_i16, version in 0..19_i16, bytes in vec(any::<u8>(), 0..300)) {
        let frame = [&key.to_be_bytes(), &version.to_be_bytes(), &bytes[..]].concat();
        if let Ok(request) = parse(&frame) {
            encoded(&request);
        }
    }
}

/// The schemas are not too strict: what they never allow to be null the message crate does not, either.
#[test]
fn null_is_refused_nowhere_else_than_in_the_message_crate() {
    for (api, version) in every_version() {
        for body in bodies_with_a_wrong_null(api, version, &ENTROPY) {
            assert!(walk(api.schema, version, &body).is_err(), "{:?} v{version}", api.key);
            let decoded = RequestKind::decode(api.key, &mut Bytes::from(body), version);
            assert!(decoded.is_err(), "{:?} v{version}: {decoded:?}", api.key);
        }
    }
}

/// A frame of that version without client id, and that body.
fn frame(key: ApiKey, version: i16, body: &[&[u8]]) -> Vec<u8> {
    let flexible = supported::find(key as i16).unwrap().schema.is_flexible(version);
    let header = [&(key as i16).to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7, 0xff, 0xff]].concat();
    [&header, &[0][..usize::from(flexible)], &body.concat()].concat()
}

fn flaw(frame: &[u8]) -> (&'static str, Flaw) {
    match parse(frame) {
        Err(RequestError::Malformed { source, .. }) => (source.field, source.flaw),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_length_that_lies_is_named() {
    let metadata = |body: &[&[u8]]| flaw(&frame(ApiKey::Metadata, 1, body));
    assert_eq!(metadata(&[&[0x7f, 0xff, 0xff, 0xff]]), ("topics", Flaw::Count { claimed: 0x7fff_ffff, left: 0 }));
    assert_eq!(metadata(&[&[0xff, 0xff, 0xff, 0xfe]]), ("topics", Flaw::Length(-2)));
    assert_eq!(metadata(&[&[0, 0, 0, 1], &[0, 9], b"short"]), ("name", Flaw::Truncated { needed: 9, left: 5 }));
    assert_eq!(metadata(&[&[0, 0, 0, 1], &[0xff, 0xff]]), ("name", Flaw::Null));

    let delete_groups = |body: &[&[u8]]| flaw(&frame(ApiKey::DeleteGroups, 2, body));
    assert_eq!(delete_groups(&[&[0]]), ("groups_names", Flaw::Null));
    assert_eq!(delete_groups(&[&[0xff, 0xff, 0xff, 0xff, 0x1f]]), ("groups_names", Flaw::Varint));
    assert_eq!(delete_groups(&[&[0x80; 6]]), ("groups_names", Flaw::Varint));
    assert_eq!(
        delete_groups(&[&[2], &[0x81, 0x80, 0x02], &[b'x'; 40_000], &[0]]),
        ("groups_names", Flaw::Length(32_768))
    );
    assert_eq!(delete_groups(&[&[1], &[9]]), ("body", Flaw::Count { claimed: 9, left: 0 }));
}

#[test]
fn a_tagged_field_takes_exactly_the_bytes_that_it_claims() {
    // Up to the tagged fields of a Fetch of version 15: no topics, none forgotten, no rack.
    let fetch = |tags: &[u8]| frame(ApiKey::Fetch, 15, &[&[0; 21], &[1, 1, 1], tags]);
    let replica_state = [1, 1, 13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    assert!(parse(&fetch(&replica_state)).is_ok());
    let mut longer = replica_state.to_vec();
    longer[2] = 14;
    longer.push(0);
    assert_eq!(flaw(&fetch(&longer)), ("replica_state", Flaw::Trailing(1)));
    let mut shorter = replica_state.to_vec();
    shorter[2] = 12;
    assert_eq!(flaw(&fetch(&shorter)), ("replica_state", Flaw::Truncated { needed: 1, left: 0 }));
}

#[test]
fn counts_that_are_true_but_too_large_are_refused() {
    let groups = |count: usize| frame(ApiKey::DeleteGroups, 0, &[&(count as i32).to_be_bytes(), &vec![0; 2 * count]]);
    assert!(parse(&groups(MAX_ELEMENTS)).is_ok());
    assert_eq!(flaw(&groups(MAX_ELEMENTS + 1)), ("groups_names", Flaw::TooMany));
}

#[test]
fn records_stay_where_they_are() {
    let records = [0x5a; 1000];
    let partition = [&[0, 0, 0, 0], &1000_i32.to_be_bytes(), &records[..]].concat();
    let topics = [&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1][..], &partition].concat();
    let frame = Bytes::from(frame(ApiKey::Produce, 7, &[&[0xff, 0xff, 0, 1, 0, 0, 0, 9], &topics]));
    let RequestKind::Produce(produce) = parse_request(frame.clone()).unwrap().body else { panic!("not a Produce") };
    let found = produce.topic_data[0].partition_data[0].records.as_ref().unwrap();
    assert_eq!(found[..], records);
    assert_eq!(found.as_ptr(), frame[frame.len() - 1000..].as_ptr());
}

/// librdkafka's bytes when it asks for all topics: it leaves the room in which it would have counted them.
#[test]
fn what_comes_after_a_body_is_not_looked_at() {
    let Request { body, .. } = parse(&frame(ApiKey::Metadata, 13, &[&[0, 0, 0, 0, 1, 0, 0]])).unwrap();
    let RequestKind::Metadata(request) = body else { panic!("{body:?}") };
    assert_eq!(request.topics, None);
}

#[test]
fn an_api_versions_request_is_understood_whatever_it_says() {
    let name = |frame: &[u8]| match parse(frame).unwrap().body {
        RequestKind::ApiVersions(request) => request.client_software_name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(&frame(ApiKey::ApiVersions, 3, &[&[3], b"me", &[2], b"1", &[0]])), "me");
    assert_eq!(name(&frame(ApiKey::ApiVersions, 3, &[&[3], b"me", &[2], b"1"])), "unknown");
    assert_eq!(name(&frame(ApiKey::ApiVersions, 3, &[&[3], b"me", &[2], b"1", &[0, 0, 0]])), "me");
    assert_eq!(name(&frame(ApiKey::ApiVersions, 0, &[])), "");
}

#[test]
fn an_api_versions_request_from_the_future_is_answered_in_version_0() {
    let error = parse(&[0, 18, 0, 99, 0, 0, 0, 42, 0xde, 0xad]).unwrap_err();
    let frame = error.answer().unwrap().parts.concat();
    assert_eq!(frame[..4], (frame.len() as i32 - 4).to_be_bytes());
    assert_eq!(frame[4..8], [0, 0, 0, 42]);
    assert_eq!(frame[8..10], ResponseError::UnsupportedVersion.code().to_be_bytes());
    assert_eq!(frame[10..14], (SUPPORTED.len() as i32).to_be_bytes());
    assert_eq!(frame[14..20], [0, 0, 0, 0, 0, 13], "Produce, with the versions that librdkafka looks for");
    assert_eq!(frame.len(), 14 + 6 * SUPPORTED.len());
}

#[test]
fn other_requests_that_are_not_done_close_the_connection() {
    let close = |frame: &[u8]| {
        let error = parse(frame).unwrap_err();
        assert!(error.answer().is_none());
        error.to_string()
    };
    assert_eq!(close(&[]), "a frame of 0 bytes ends inside its request header");
    assert_eq!(close(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 9, b'm']), "a frame of 11 bytes ends inside its request header");
    assert_eq!(close(&[0, 4, 0, 1, 0, 0, 0, 1, 0, 0]), "request number 4 is not supported");
    assert_eq!(close(&[0, 0, 0, 2, 0, 0, 0, 1, 0, 0]), "Produce version 2 is not supported");
    assert_eq!(close(&[0, 0, 0xff, 0xff, 0, 0, 0, 1, 0, 0]), "Produce version -1 is not supported");
    assert_eq!(close(&frame(ApiKey::DeleteGroups, 0, &[])), "DeleteGroups version 0 is malformed");
    let not_utf8 = close(&frame(ApiKey::DeleteGroups, 0, &[&[0, 0, 0, 1, 0, 1, 0xff]]));
    assert!(not_utf8.starts_with("DeleteGroups version 0 cannot be decoded: "), "{not_utf8}");
}

/// `tests/corpus/requests.txt` has a request of every version, for the tests that change their bytes.
#[test]
fn the_corpus_has_every_version() {
    let corpus = include_str!("../../tests/corpus/requests.txt");
    let missing: Vec<String> = every_version()
        .map(|(api, version)| (format!("{:?} {version} ", api.key), api, version))
        .filter(|(name, _, _)| !corpus.lines().any(|line| line.starts_with(name)))
        .map(|(name, api, version)| {
            let (frame, _) = request_frame(api, version, &ENTROPY);
            name + &frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        })
        .collect();
    assert!(missing.is_empty(), "add these lines:\n{}", missing.join("\n"));
}

/// Makes requests that have something in every field.
const ENTROPY: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at * 167 + 41) as u8;
        at += 1;
    }
    bytes
};
