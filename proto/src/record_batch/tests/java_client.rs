//! Batches written by Apache Kafka's own client library (kafka-clients 4.1.0), read here; and ours equal to them.

use bytes::Bytes;

use super::*;
use crate::ids::Epoch;

// The first seven hold the records of `inputs`, each in its own way; the last a marker that commits a transaction.
const NONE: &str = "\
     0000000000000000000000a2ffffffff02a53526b90000000000020000018bcfe568000000018bcfe5692cffffffffffffffffff\
     ffffffffff00000003a4010000000c757365722d315e68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f20\
     68656c6c6f2068656c6c6f2068656c6c6f060a747261636502610a747261636502620a656d7074790118001302010c6e6f206b65\
     79001e00d804040c757365722d3101020000";
const LZ4: &str = "\
     00000000000000000000008bffffffff02f3f29ba20003000000020000018bcfe568000000018bcfe5692cffffffffffffffffff\
     ffffffffff0000000304224d186040824b000000ff04a4010000000c757365722d315e68656c6c6f2006001693060a7472616365\
     02610800f016620a656d7074790118001302010c6e6f206b6579001e00d804040c757365722d310102000000000000";
const ZSTD: &str = "\
     000000000000000000000084ffffffff021a33e0560004000000020000018bcfe568000000018bcfe5692cffffffffffffffffff\
     ffffffffff0000000328b52ffd00583c0200a403a4010000000c757365722d315e68656c6c6f20060a74726163650261620a656d\
     7074790118001302010c6e6f206b6579001e00d8040401020000030092218f954c16a8d801010000";
const GZIP: &str = "\
     000000000000000000000085ffffffff02f2ba81610001000000020000018bcfe568000000018bcfe5692cffffffffffffffffff\
     ffffffffff000000031f8b08000000000000ff5bc2c8c0c0c0535a9c5aa46b1897919a9393af4034c9c6555294989cca9408a593\
     b852730b4a2a19251884991879f2f215b2532b19e4186eb0b0402d60646260000065fd25b571000000";
const SNAPPY: &str = "\
     00000000000000000000008fffffffff0287957e400002000000020000018bcfe568000000018bcfe5692cffffffffffffffffff\
     ffffffffff0000000382534e415050590000000001000000010000004a7148a4010000000c757365722d315e68656c6c6f20a206\
     0020060a747261636502610d0890620a656d7074790118001302010c6e6f206b6579001e00d804040c757365722d3101020000";
const IDEMPOTENT: &str = "\
     0000000000000000000000a2ffffffff02ffa2ba700000000000020000018bcfe568000000018bcfe5692c0000000000000fa100\
     030000004d00000003a4010000000c757365722d315e68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f20\
     68656c6c6f2068656c6c6f2068656c6c6f060a747261636502610a747261636502620a656d7074790118001302010c6e6f206b65\
     79001e00d804040c757365722d3101020000";
const LOG_APPEND_TIME: &str = "\
     0000000000000000000000a2ffffffff02ce6db8620008000000020000018bcfe568000000018bcfe58f0fffffffffffffffffff\
     ffffffffff00000003a4010000000c757365722d315e68656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f2068656c6c6f20\
     68656c6c6f2068656c6c6f2068656c6c6f060a747261636502610a747261636502620a656d7074790118001302010c6e6f206b65\
     79001e00d804040c757365722d3101020000";
const CONTROL: &str = "\
     0000000000000005000000420000000202059628880030000000000000018bcfe568000000018bcfe568000000000000000fa100\
     03ffffffff000000012000000008000000010c00000000000100";

fn unhex(text: &str) -> Bytes {
    assert!(text.len().is_multiple_of(2));
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn inputs() -> [Input; 3] {
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    [
        Input {
            timestamp: 1_700_000_000_000,
            key: bytes("user-1"),
            value: bytes("hello hello hello hello hello hello hello hello"),
            headers: vec![(b"trace".to_vec(), bytes("a")), (b"trace".to_vec(), bytes("b")), (b"empty".to_vec(), None)],
        },
        Input { timestamp: 1_699_999_999_990, key: None, value: bytes("no key"), headers: vec![] },
        Input {
            timestamp: 1_700_000_000_300,
            key: bytes("user-1"),
            value: None,
            headers: vec![(b"".to_vec(), bytes(""))],
        },
    ]
}

fn read(batch: &Bytes) -> Vec<Record> {
    verify_crc(batch).unwrap();
    records(batch, &RecordLimits::default()).unwrap().map(Result::unwrap).collect()
}

fn expected_records() -> Vec<Record> {
    inputs().iter().zip(0..).map(|(input, offset)| input.at(offset)).collect()
}

#[test]
fn reads_records_of_every_codec() {
    let samples = [NONE, GZIP, SNAPPY, LZ4, ZSTD];
    for (text, codec) in samples.into_iter().zip(Codec::ALL) {
        let batch = unhex(text);
        assert_eq!(BatchHeader::parse(&batch).unwrap().codec(), codec);
        assert_eq!(read(&batch), expected_records(), "{codec}");
    }
}

#[test]
fn takes_every_codec_from_a_producer() {
    for text in [NONE, LZ4, ZSTD, GZIP, SNAPPY, IDEMPOTENT] {
        let batch = unhex(text);
        let header = validate_produced(&batch, &BatchLimits { max_batch_bytes: 1 << 20 }).unwrap();
        assert_eq!(header.record_count(), 3);
    }
}

#[test]
fn parses_every_field_of_the_header() {
    let header = BatchHeader::parse(&unhex(IDEMPOTENT)).unwrap();
    assert_eq!(header.total_len(), IDEMPOTENT.len() / 2);
    assert_eq!(header.base_offset(), Offset(0));
    assert_eq!(header.last_offset(), Offset(2));
    assert_eq!(header.next_offset(), Offset(3));
    assert_eq!(header.offset_count(), 3);
    assert_eq!(header.last_offset_delta(), 2);
    assert_eq!(header.record_count(), 3);
    assert_eq!(header.leader_epoch(), None);
    assert_eq!(header.crc(), 0xffa2_ba70);
    assert_eq!(header.codec(), Codec::None);
    assert_eq!(header.timestamp_type(), TimestampType::Create);
    assert!(!header.is_transactional() && !header.is_control() && !header.has_delete_horizon());
    assert_eq!(header.base_timestamp(), 1_700_000_000_000);
    assert_eq!(header.max_timestamp(), 1_700_000_000_300);
    assert_eq!(header.producer(), Some(ProducerKey { id: 4001, epoch: 3 }));
    assert_eq!((header.base_sequence(), header.last_sequence()), (77, 79));

    assert_eq!(BatchHeader::parse(&unhex(NONE)).unwrap().producer(), None);
}

#[test]
fn time_of_the_append_stands_for_every_record() {
    let batch = unhex(LOG_APPEND_TIME);
    assert_eq!(BatchHeader::parse(&batch).unwrap().timestamp_type(), TimestampType::LogAppend);
    assert!(read(&batch).iter().all(|record| record.timestamp == 1_700_000_009_999));
}

#[test]
fn control_batch_is_recognised() {
    let batch = unhex(CONTROL);
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(header.is_control() && header.is_transactional());
    assert_eq!(header.leader_epoch(), Some(Epoch(2)));
    assert_eq!((header.base_offset(), header.next_offset()), (Offset(5), Offset(6)));
    assert_eq!(read(&batch).len(), 1);
}

#[test]
fn builds_the_same_bytes() {
    assert_eq!(build(Codec::None, &inputs()), unhex(NONE));

    let mut builder = BatchBuilder::new(Codec::None, inputs()[0].timestamp);
    builder.set_producer(ProducerKey { id: 4001, epoch: 3 }, 77);
    inputs().iter().for_each(|input| input.append_to(&mut builder));
    assert_eq!(builder.build(), unhex(IDEMPOTENT));
}
