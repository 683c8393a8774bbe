//! The index as bytes. See `docs/formats/index.md`.

use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, Offset, PartitionId, TopicId, TopicPartition};
use bytes::{BufMut, Bytes, BytesMut};

use super::{CHUNK_LEN, OffsetEntry, SegmentIndex, TimeEntry};
use crate::byte_reader::{ByteReader, Malformed};
use crate::segment::FIRST_BATCH_POSITION;
use crate::{FolderPath, ProducerSnapshot, SegmentPath, StoreError};

const MAGIC: [u8; 8] = *b"bmq-idx\n";
const VERSION: u32 = 1;
const CHECKSUM_LEN: usize = 4;
const ENTRY_LEN: usize = 16;

impl SegmentIndex {
    /// The index file's content.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u32(VERSION);
        encode_path(self.path, &mut out);
        out.put_u64(self.base_offset.0);
        out.put_u64(self.end_offset.0);
        out.put_u64(self.end_position.0);
        put_count(&mut out, self.offsets.len());
        for entry in &self.offsets {
            out.put_u64(entry.offset.0);
            out.put_u64(entry.position.0);
        }
        put_count(&mut out, self.times.len());
        for entry in &self.times {
            out.put_i64(entry.max_timestamp_ms);
            out.put_u64(entry.before.0);
        }
        put_count(&mut out, self.chunk_checksums.len());
        for checksum in &self.chunk_checksums {
            out.put_u32(*checksum);
        }
        self.producers.encode(&mut out);
        let checksum = crc32fast::hash(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// Reads the content of the index file of the segment at `path`. `Damaged` if it is not exactly one.
    pub fn decode(bytes: &[u8], path: SegmentPath) -> Result<Self, StoreError> {
        let damaged = |Malformed { position, reason }| StoreError::Damaged {
            path: path.index_path(),
            position: position as u64,
            reason,
        };
        let index = decode_checked(bytes).map_err(damaged)?;
        if index.path != path {
            return Err(damaged(Malformed { position: 0, reason: format!("it is the index of {}", index.path) }));
        }
        Ok(index)
    }
}

fn decode_checked(bytes: &[u8]) -> Result<SegmentIndex, Malformed> {
    let at_start = |reason: String| Malformed { position: 0, reason };
    let Some((content, stored)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(at_start(format!("it has only {} bytes", bytes.len())));
    };
    let mut reader = ByteReader::new(content);
    if reader.array("magic")? != MAGIC {
        return Err(at_start("it does not begin with the index magic".to_owned()));
    }
    let version = reader.u32("version")?;
    if version != VERSION {
        return Err(at_start(format!("it has version {version}, this program reads {VERSION}")));
    }
    let (stored, computed) = (u32::from_be_bytes(*stored), crc32fast::hash(content));
    if stored != computed {
        return Err(at_start(format!("its checksum is {stored:08x}, computed {computed:08x}")));
    }
    let index = SegmentIndex {
        path: decode_path(&mut reader)?,
        base_offset: Offset(reader.u64("base offset")?),
        end_offset: Offset(reader.u64("end offset")?),
        end_position: BytePosition(reader.u64("end position")?),
        offsets: decode_offsets(&mut reader)?,
        times: decode_times(&mut reader)?,
        chunk_checksums: decode_checksums(&mut reader)?,
        producers: ProducerSnapshot::decode(&mut reader)?,
    };
    reader.end()?;
    index.check().map_err(|reason| at_start(reason.to_owned()))?;
    Ok(index)
}

impl SegmentIndex {
    /// Checks the invariants, which a correct checksum does not promise.
    fn check(&self) -> Result<(), &'static str> {
        let offsets_grow = self.offsets.is_sorted_by(|a, b| a.offset < b.offset && a.position < b.position);
        let first = self
            .offsets
            .first()
            .is_none_or(|entry| entry.offset >= self.base_offset && entry.position == FIRST_BATCH_POSITION);
        let last = self
            .offsets
            .last()
            .is_none_or(|entry| entry.offset < self.end_offset && entry.position < self.end_position);
        if !offsets_grow || !first || !last {
            return Err("its offset entries are not in order");
        }
        let times_grow =
            self.times.is_sorted_by(|a, b| a.max_timestamp_ms < b.max_timestamp_ms && a.before <= b.before);
        let within = self.times.iter().all(|entry| self.base_offset <= entry.before && entry.before <= self.end_offset);
        if !times_grow || !within {
            return Err("its time entries are not in order");
        }
        if self.base_offset > self.end_offset || self.end_position < FIRST_BATCH_POSITION {
            return Err("it ends before it begins");
        }
        if self.chunk_checksums.len() as u64 != self.end_position.0.div_ceil(CHUNK_LEN as u64) {
            return Err("it has not one checksum for each chunk");
        }
        Ok(())
    }
}

fn encode_path(path: SegmentPath, out: &mut BytesMut) {
    out.put_slice(&path.folder.cluster.0);
    out.put_slice(&path.folder.topic().0);
    out.put_u32(path.folder.number().0);
    out.put_u32(path.file.epoch.0);
    out.put_u64(path.file.nonce);
}

fn decode_path(reader: &mut ByteReader<'_>) -> Result<SegmentPath, Malformed> {
    let cluster = ClusterId(reader.array("cluster id")?);
    let topic = TopicId(reader.array("topic id")?);
    let partition = PartitionId(reader.u32("partition")?);
    let file = FileId { epoch: Epoch(reader.u32("epoch")?), nonce: reader.u64("nonce")? };
    Ok(FolderPath::new(cluster, TopicPartition { topic, partition }).segment(file))
}

fn decode_offsets(reader: &mut ByteReader<'_>) -> Result<Vec<OffsetEntry>, Malformed> {
    let count = reader.count("offset entries", ENTRY_LEN)?;
    let entry =
        |_| Ok(OffsetEntry { offset: Offset(reader.u64("entry")?), position: BytePosition(reader.u64("entry")?) });
    (0..count).map(entry).collect()
}

fn decode_times(reader: &mut ByteReader<'_>) -> Result<Vec<TimeEntry>, Malformed> {
    let count = reader.count("time entries", ENTRY_LEN)?;
    let entry = |_| Ok(TimeEntry { max_timestamp_ms: reader.i64("entry")?, before: Offset(reader.u64("entry")?) });
    (0..count).map(entry).collect()
}

fn decode_checksums(reader: &mut ByteReader<'_>) -> Result<Vec<u32>, Malformed> {
    let count = reader.count("chunk checksums", 4)?;
    (0..count).map(|_| reader.u32("chunk checksum")).collect()
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("a segment has far fewer than four billion entries"));
}
