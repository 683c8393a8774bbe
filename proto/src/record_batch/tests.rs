//! What the tests of the codec share.

mod bytes_from_outside;
mod java_client;
mod round_trip;
mod validation;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::ids::Offset;

const COMPRESSING: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A record to append.
#[derive(Debug, Clone)]
struct Input {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Input {
    fn append_to(&self, builder: &mut BatchBuilder) {
        let headers: Vec<HeaderRef> = self.headers.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let before = builder.estimated_len();
        let index = builder
            .append(self.timestamp, self.key.as_deref(), self.value.as_deref(), &headers)
            .expect("the record is small");
        assert_eq!(index + 1, builder.record_count());
        let added = builder.estimated_len() - before;
        assert!(added <= max_record_len(self.key.as_deref(), self.value.as_deref(), &headers));
    }

    fn at(&self, offset: u64) -> Record {
        let bytes = |vec: &Vec<u8>| Bytes::copy_from_slice(vec);
        Record {
            offset: Offset(offset),
            timestamp: self.timestamp,
            key: self.key.as_ref().map(bytes),
            value: self.value.as_ref().map(bytes),
            headers: self.headers.iter().map(|(key, value)| (bytes(key), value.as_ref().map(bytes))).collect(),
        }
    }
}

fn build(codec: Codec, inputs: &[Input]) -> Bytes {
    let mut builder = BatchBuilder::new(codec, inputs[0].timestamp);
    inputs.iter().for_each(|input| input.append_to(&mut builder));
    builder.build()
}

/// A batch of three small records.
fn sample(codec: Codec) -> Bytes {
    let record = |timestamp, value: &str| Input {
        timestamp,
        key: Some(b"key".to_vec()),
        value: Some(value.repeat(20).into_bytes()),
        headers: vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None)],
    };
    build(codec, &[record(1_000, "one"), record(1_002, "two"), record(1_001, "three")])
}

/// `batch` after `edit`, with a CRC that fits again.
fn edited(batch: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut batch = batch.to_vec();
    edit(&mut batch);
    let crc = crc32c::crc32c(&batch[field::ATTRIBUTES..]);
    batch[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn any_codec() -> impl Strategy<Value = Codec> {
    prop::sample::select(&Codec::ALL[..])
}

fn any_input() -> impl Strategy<Value = Input> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let nullable = || prop::option::of(bytes());
    // A key of few letters repeats within a record.
    let header = (prop::collection::vec(b'a'..=b'c', 0..2), nullable());
    let timestamp = prop_oneof![8 => 1_700_000_000_000..1_700_000_100_000_i64, 1 => NO_TIMESTAMP..=i64::MAX];
    (timestamp, nullable(), nullable(), prop::collection::vec(header, 0..5))
        .prop_map(|(timestamp, key, value, headers)| Input { timestamp, key, value, headers })
}

fn any_inputs() -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec(any_input(), 1..30)
}
