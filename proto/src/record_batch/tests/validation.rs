//! Each thing that is refused, and the words it is refused with.

use bytes::Bytes;

use super::*;

/// Validates the sample batch after `edit`, with a CRC that fits.
#[track_caller]
fn check(edit: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let batch = edited(&sample(Codec::None), edit);
    let error = validate_produced(&batch, &BatchLimits { max_batch_bytes: 1_000 }).expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

/// Sets the big-endian field at `at`.
fn set<const N: usize>(at: usize, value: [u8; N]) -> impl FnOnce(&mut Vec<u8>) {
    move |batch| batch[at..at + N].copy_from_slice(&value)
}

/// Makes the batch an idempotent producer's.
fn set_producer(id: i64, epoch: i16, sequence: i32) -> impl FnOnce(&mut Vec<u8>) {
    move |batch| {
        set(field::PRODUCER_ID, id.to_be_bytes())(batch);
        set(field::PRODUCER_EPOCH, epoch.to_be_bytes())(batch);
        set(field::BASE_SEQUENCE, sequence.to_be_bytes())(batch);
    }
}

#[test]
fn refuses_frames_that_are_not_one_batch() {
    check(|batch| batch.push(0), "batch is corrupt: number of bytes after the batch is 1, must be 0");
    check(|batch| drop(batch.split_off(batch.len() - 1)), "batch is cut short: needs 336 bytes, has 335");
    check(set(field::LENGTH, 48_i32.to_be_bytes()), "batch is corrupt: batch length is 48, must be at least 49");
    check(set(field::LENGTH, (-1_i32).to_be_bytes()), "batch is corrupt: batch length is -1, must be at least 49");
    check(set(field::LENGTH, 989_i32.to_be_bytes()), "batch has 1001 bytes, at most 1000 are allowed");
    check(set(field::MAGIC, [1]), "batch is corrupt: magic is 1, must be 2");
}

#[test]
fn refuses_counts_and_offsets_that_do_not_fit() {
    check(set(field::RECORD_COUNT, (-1_i32).to_be_bytes()), "batch is corrupt: record count is -1, must be at least 0");
    check(set(field::RECORD_COUNT, 4_i32.to_be_bytes()), "batch is corrupt: record count is 4, must be at most 3");
    check(
        set(field::RECORD_COUNT, 0_i32.to_be_bytes()),
        "batch is not one that a producer may send: record count is 0, must be at least 1",
    );
    check(
        set(field::RECORD_COUNT, 2_i32.to_be_bytes()),
        "batch is not one that a producer may send: record count is 2, must be 3",
    );
    check(
        |batch| {
            set(field::LAST_OFFSET_DELTA, 999_i32.to_be_bytes())(batch);
            set(field::RECORD_COUNT, 1_000_i32.to_be_bytes())(batch);
        },
        "batch is corrupt: record count is 1000, must be at most 39",
    );
    check(
        set(field::LAST_OFFSET_DELTA, (-1_i32).to_be_bytes()),
        "batch is corrupt: last offset delta is -1, must be at least 0",
    );
    check(set(field::BASE_OFFSET, (-1_i64).to_be_bytes()), "batch is corrupt: base offset is -1, must be at least 0");
    check(
        set(field::BASE_OFFSET, (i64::MAX - 2).to_be_bytes()),
        "batch is corrupt: base offset is 9223372036854775805, must be at most 9223372036854775804",
    );
}

#[test]
fn refuses_attributes_that_are_not_a_producers() {
    let attributes = |bits: i16| set(field::ATTRIBUTES, bits.to_be_bytes());
    check(attributes(5), "batch is corrupt: compression codec is 5, must be at most 4");
    check(
        attributes(attribute::LOG_APPEND_TIME),
        "batch is not one that a producer may send: log append time bit is 1, must be 0",
    );
    check(attributes(attribute::TRANSACTIONAL), "transactional batches are not supported");
    check(attributes(attribute::CONTROL), "batch is not one that a producer may send: control bit is 1, must be 0");
    check(
        attributes(attribute::DELETE_HORIZON),
        "batch is not one that a producer may send: delete horizon bit is 1, must be 0",
    );
}

#[test]
fn refuses_timestamps_below_none() {
    check(
        set(field::BASE_TIMESTAMP, (-2_i64).to_be_bytes()),
        "batch is not one that a producer may send: base timestamp is -2, must be at least -1",
    );
    check(
        set(field::MAX_TIMESTAMP, i64::MIN.to_be_bytes()),
        "batch is not one that a producer may send: max timestamp is -9223372036854775808, must be at least -1",
    );
}

#[test]
fn refuses_half_a_producer() {
    check(
        set_producer(-2, -1, -1),
        "batch is not one that a producer may send: producer id is -2, must be at least -1",
    );
    check(
        set_producer(1, -1, 0),
        "batch is not one that a producer may send: producer epoch is -1, must be at least 0",
    );
    check(set_producer(1, 0, -1), "batch is not one that a producer may send: base sequence is -1, must be at least 0");
}

#[test]
fn refuses_a_wrong_checksum_with_both_numbers() {
    let mut batch = sample(Codec::None).to_vec();
    let stored = BatchHeader::parse(&batch).unwrap().crc();
    *batch.last_mut().unwrap() ^= 1;
    let computed = crc32c::crc32c(&batch[field::ATTRIBUTES..]);
    let error = validate_produced(&batch, &BatchLimits { max_batch_bytes: 1_000 }).unwrap_err();
    let expected = format!("batch is corrupt: its checksum is {stored:#010x}, its bytes give {computed:#010x}");
    assert_eq!(error.to_string(), expected);
}

/// Clients leave these as they like; Kafka takes them, so we do.
#[test]
fn takes_what_clients_leave_unset() {
    let takes = |edit: &dyn Fn(&mut Vec<u8>)| {
        let batch = edited(&sample(Codec::Lz4), edit);
        validate_produced(&batch, &BatchLimits { max_batch_bytes: batch.len() }).unwrap();
    };
    takes(&|_| ());
    takes(&|batch| set(field::MAX_TIMESTAMP, (-1_i64).to_be_bytes())(batch));
    takes(&|batch| set(field::BASE_TIMESTAMP, (-1_i64).to_be_bytes())(batch));
    takes(&|batch| set_producer(-1, 0, 0)(batch));
    takes(&|batch| set(field::LEADER_EPOCH, 0_i32.to_be_bytes())(batch));
    takes(&|batch| set(field::BASE_OFFSET, 17_i64.to_be_bytes())(batch));
}

/// Reads the records of a batch whose only record has these bytes.
#[track_caller]
fn check_record(record: &[u8], expected: &str) {
    let batch = edited(&sample(Codec::None), |batch| {
        batch.truncate(HEADER_LEN);
        batch.extend_from_slice(record);
        set(field::LENGTH, ((batch.len() - LENGTH_PREFIX) as u32).to_be_bytes())(batch);
        set(field::RECORD_COUNT, 1_u32.to_be_bytes())(batch);
        set(field::LAST_OFFSET_DELTA, 0_u32.to_be_bytes())(batch);
    });
    let mut iter = records(&Bytes::from(batch), &RecordLimits { max_headers: 1, ..Default::default() }).unwrap();
    let error = iter.find_map(Result::err).expect(expected);
    assert_eq!(error.to_string(), expected);
    assert!(error.is_corrupt());
    assert!(iter.next().is_none(), "an error is the last item");
}

#[test]
fn refuses_malformed_records() {
    // Length 6, attributes, timestamp delta 0, offset delta 0, null key, null value, no headers.
    let good = [12, 0, 0, 0, 1, 1, 0];
    let with = |at: usize, byte: u8| {
        let mut record = good;
        record[at] = byte;
        record
    };
    check_record(
        &[&good[..], &[0]].concat(),
        "batch is corrupt: number of bytes after the last record is 1, must be 0",
    );
    check_record(&with(0, 10), "batch is corrupt: record length is 5, must be at least 6");
    check_record(&with(0, 14), "batch is corrupt: record length is 7, must be at most 6");
    check_record(&[0x80; 7], "batch is corrupt: record length at byte 0 of the records is not a whole varint");
    check_record(&with(3, 1), "batch is corrupt: record offset delta is -1, must be at least 0");
    check_record(&with(3, 2), "batch is corrupt: record offset delta is 1, must be at most 0");
    check_record(&with(4, 3), "batch is corrupt: record key length is -2, must be at least -1");
    check_record(&with(4, 6), "batch is corrupt: record key length is 3, must be at most 2");
    check_record(&with(5, 4), "batch is corrupt: record value length is 2, must be at most 1");
    check_record(&with(6, 1), "batch is corrupt: record header count is -1, must be at least 0");
    check_record(&with(6, 2), "batch is corrupt: record header count is 1, must be at most 0");
    check_record(
        &with(6, 0x80),
        "batch is corrupt: record header count at byte 6 of the records is not a whole varint",
    );
    check_record(&[16, 0, 0, 0, 1, 1, 2, 1, 1], "batch is corrupt: header key length is -1, must be at least 0");
    check_record(&[20, 0, 0, 0, 1, 1, 4, 0, 1, 0, 1], "batch is corrupt: record header count is 2, must be at most 1");
    check_record(
        &[14, 0, 0, 0, 1, 1, 0, 9],
        "batch is corrupt: number of bytes after the record's fields is 1, must be 0",
    );
}

#[test]
fn refuses_offsets_that_do_not_grow() {
    let record = [12, 0, 0, 0, 1, 1, 0];
    let batch = edited(&sample(Codec::None), |batch| {
        batch.truncate(HEADER_LEN);
        batch.extend_from_slice(&record.repeat(2));
        set(field::LENGTH, ((batch.len() - LENGTH_PREFIX) as u32).to_be_bytes())(batch);
        set(field::RECORD_COUNT, 2_u32.to_be_bytes())(batch);
    });
    let results: Vec<_> = records(&batch.into(), &RecordLimits::default()).unwrap().collect();
    assert!(results[0].is_ok());
    let error = results[1].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "batch is corrupt: record offset delta is 0, must be at least 1");
    assert_eq!(results.len(), 2);
}
