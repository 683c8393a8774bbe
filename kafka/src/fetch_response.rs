//! A Fetch response whose record batches are not copied.
//!
//! The message crate would copy them into its buffer. Everything down to the records is therefore written here, and
//! only the small structures beside them by the crate. A test holds the two byte for byte against each other.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::Encodable;

use crate::response::{EncodeError, FrameBuilder};

/// Writes the body of a Fetch response of that version.
pub(crate) fn put_fetch_response(
    frame: &mut FrameBuilder,
    version: i16,
    response: &FetchResponse,
) -> Result<(), EncodeError> {
    let form = Form { version, flexible: version >= 12 };
    form.check_absent("session_id", 7, response.session_id != 0)?;
    let bytes = frame.own();
    bytes.put_i32(response.throttle_time_ms);
    if version >= 7 {
        bytes.put_i16(response.error_code);
        bytes.put_i32(response.session_id);
    }
    form.put_count(bytes, Some(response.responses.len()))?;
    for topic in &response.responses {
        put_topic(frame, form, topic)?;
    }
    let mut tagged = Vec::new();
    if version >= 16 && !response.node_endpoints.is_empty() {
        let mut endpoints = BytesMut::new();
        form.put_array(&mut endpoints, &response.node_endpoints)?;
        tagged.push((0, endpoints));
    }
    form.put_tagged_fields(frame.own(), &tagged);
    Ok(())
}

fn put_topic(frame: &mut FrameBuilder, form: Form, topic: &FetchableTopicResponse) -> Result<(), EncodeError> {
    let bytes = frame.own();
    if form.version >= 13 {
        bytes.put_slice(topic.topic_id.as_bytes());
    } else {
        form.put_string(bytes, &topic.topic)?;
    }
    form.put_count(bytes, Some(topic.partitions.len()))?;
    for partition in &topic.partitions {
        put_partition(frame, form, partition)?;
    }
    form.put_tagged_fields(frame.own(), &[]);
    Ok(())
}

fn put_partition(frame: &mut FrameBuilder, form: Form, partition: &PartitionData) -> Result<(), EncodeError> {
    let preferred_read_replica = partition.preferred_read_replica.0;
    form.check_absent("preferred_read_replica", 11, preferred_read_replica != -1)?;
    let bytes = frame.own();
    bytes.put_i32(partition.partition_index);
    bytes.put_i16(partition.error_code);
    bytes.put_i64(partition.high_watermark);
    bytes.put_i64(partition.last_stable_offset);
    if form.version >= 5 {
        bytes.put_i64(partition.log_start_offset);
    }
    match &partition.aborted_transactions {
        Some(aborted) => form.put_array(bytes, aborted)?,
        None => form.put_count(bytes, None)?,
    }
    if form.version >= 11 {
        bytes.put_i32(preferred_read_replica);
    }
    form.put_count(bytes, partition.records.as_ref().map(|records| records.len()))?;
    if let Some(records) = &partition.records {
        frame.put_foreign(records.clone());
    }
    put_partition_tags(frame.own(), form, partition)
}

fn put_partition_tags(bytes: &mut BytesMut, form: Form, partition: &PartitionData) -> Result<(), EncodeError> {
    let mut tagged = Vec::new();
    if form.flexible {
        form.tag(&mut tagged, 0, &partition.diverging_epoch)?;
        form.tag(&mut tagged, 1, &partition.current_leader)?;
        form.tag(&mut tagged, 2, &partition.snapshot_id)?;
    }
    form.put_tagged_fields(bytes, &tagged);
    Ok(())
}

/// How a version writes lengths.
#[derive(Clone, Copy)]
struct Form {
    version: i16,
    flexible: bool,
}

impl Form {
    /// A field that this version does not have must not hold anything.
    fn check_absent(self, field: &'static str, since: i16, is_set: bool) -> Result<(), EncodeError> {
        match is_set && self.version < since {
            true => Err(self.unencodable(format!("`{field}` does not exist before version {since}"))),
            false => Ok(()),
        }
    }

    /// The count of an array or the length of a byte array; nothing stands for null.
    fn put_count(self, bytes: &mut BytesMut, count: Option<usize>) -> Result<(), EncodeError> {
        let count = match count {
            Some(count) => i32::try_from(count).map_err(|_| EncodeError::TooLong(count))?,
            None => -1,
        };
        match self.flexible {
            true => put_varint(bytes, (count + 1) as u32),
            false => bytes.put_i32(count),
        }
        Ok(())
    }

    fn put_string(self, bytes: &mut BytesMut, text: &str) -> Result<(), EncodeError> {
        let len = i16::try_from(text.len()).map_err(|_| EncodeError::TooLong(text.len()))?;
        match self.flexible {
            true => put_varint(bytes, len as u32 + 1),
            false => bytes.put_i16(len),
        }
        bytes.put_slice(text.as_bytes());
        Ok(())
    }

    fn put_array<T: Encodable>(self, bytes: &mut BytesMut, items: &[T]) -> Result<(), EncodeError> {
        self.put_count(bytes, Some(items.len()))?;
        items.iter().try_for_each(|item| self.put(bytes, item))
    }

    fn put<T: Encodable>(self, bytes: &mut BytesMut, item: &T) -> Result<(), EncodeError> {
        item.encode(bytes, self.version).map_err(|error| self.unencodable(format!("{error:#}")))
    }

    /// Adds a tagged field unless it holds its default, which is not sent.
    fn tag<T: Encodable + Default + PartialEq>(
        self,
        tagged: &mut Vec<(u32, BytesMut)>,
        tag: u32,
        value: &T,
    ) -> Result<(), EncodeError> {
        if *value != T::default() {
            let mut bytes = BytesMut::new();
            self.put(&mut bytes, value)?;
            tagged.push((tag, bytes));
        }
        Ok(())
    }

    /// The end of a structure: fields by tag in flexible versions, else nothing.
    fn put_tagged_fields(self, bytes: &mut BytesMut, tagged: &[(u32, BytesMut)]) {
        if !self.flexible {
            return;
        }
        put_varint(bytes, tagged.len() as u32);
        for (tag, value) in tagged {
            put_varint(bytes, *tag);
            put_varint(bytes, value.len() as u32);
            bytes.put_slice(value);
        }
    }

    fn unencodable(self, reason: String) -> EncodeError {
        EncodeError::Unencodable { version: self.version, reason }
    }
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}
