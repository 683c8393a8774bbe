//! Reading a segment batch by batch, to find out how far it is good.
//!
//! Each batch must follow the one before it in offset, carry the epoch of the segment's owner, and match its checksum.
//! In a segment that compaction wrote, offsets may have gaps and epochs are older. The scanner has no IO: it is fed the
//! file's bytes in order.

use bmq_proto::meta::{SegmentEnd, SegmentRecord};
use bmq_proto::record_batch::{BatchHeader, HEADER_LEN, verify_crc};
use bmq_proto::{BytePosition, Epoch, Offset};
use bmq_storage::SegmentPath;
use bmq_storage::index::{IndexBuilder, IndexedBatch, SegmentIndex};
use bmq_storage::segment::{FIRST_BATCH_POSITION, SEGMENT_HEADER_LEN, SegmentHeader};
use bytes::{Buf, BytesMut};

use crate::machine::ScanStop;
use crate::producer_table::ProducerTable;

/// A batch longer than this is taken for a damaged length field: no topic may allow a longer one.
const MAX_PLAUSIBLE_BATCH: usize = bmq_proto::topic_config::MAX_BATCH_BYTES;

/// Where the CRC's cover begins in a batch.
const CRC_COVER: usize = 21;

/// Scans one segment.
#[derive(Debug)]
pub struct SegmentScanner {
    path: SegmentPath,
    base_offset: Offset,
    epoch: Epoch,
    /// Where a compacted segment ends.
    compacted_end: Option<Offset>,
    next_offset: Offset,
    /// Of the first byte in `buffer`.
    position: BytePosition,
    buffer: BytesMut,
    header_read: bool,
    stopped: Option<ScanStop>,
    index: IndexBuilder,
    producers: ProducerTable,
}

/// What a scan of one segment found.
#[derive(Debug)]
pub struct SegmentScan {
    /// After the last good batch.
    pub end: SegmentEnd,
    pub stop: ScanStop,
    /// Complete up to `end`.
    pub index: SegmentIndex,
    /// After the last good batch.
    pub producers: ProducerTable,
}

impl SegmentScanner {
    /// A scanner of `segment`, whose file is at `path`, starting with what earlier segments say of producers.
    pub fn new(path: SegmentPath, segment: &SegmentRecord, producers: ProducerTable) -> Self {
        Self {
            path,
            base_offset: segment.base_offset,
            epoch: segment.epoch,
            compacted_end: segment.end().filter(|_| segment.compacted).map(|end| end.offset),
            next_offset: segment.base_offset,
            position: BytePosition::ZERO,
            buffer: BytesMut::new(),
            header_read: false,
            stopped: None,
            index: IndexBuilder::new(path, segment.base_offset),
            producers,
        }
    }

    /// Takes the next bytes of the file. Returns whether more can be of use.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        if self.stopped.is_some() {
            return false;
        }
        self.buffer.extend_from_slice(bytes);
        if !self.header_read && !self.read_header() {
            return self.stopped.is_none();
        }
        while self.stopped.is_none() {
            match self.next_batch() {
                Ok(Some(header)) => self.take(&header),
                Ok(None) => return true,
                Err(reason) => self.stopped = Some(ScanStop::BadBatch(reason)),
            }
        }
        false
    }

    fn read_header(&mut self) -> bool {
        if self.buffer.len() < SEGMENT_HEADER_LEN {
            return false;
        }
        if let Err(error) = SegmentHeader::check(&self.buffer, self.path) {
            self.stopped = Some(ScanStop::BadHeader(error.to_string()));
            return false;
        }
        self.buffer.advance(SEGMENT_HEADER_LEN);
        self.position = FIRST_BATCH_POSITION;
        self.header_read = true;
        true
    }

    /// The header of the next batch if all of it is here, `None` if more bytes are needed.
    fn next_batch(&self) -> Result<Option<BatchHeader>, String> {
        if self.buffer.len() < HEADER_LEN {
            return Ok(None);
        }
        let header = self.check_header(&self.buffer, self.next_offset)?;
        if self.buffer.len() < header.total_len() {
            return Ok(None);
        }
        verify_crc(&self.buffer[..header.total_len()]).map_err(|error| error.to_string())?;
        Ok(Some(header))
    }

    fn check_header(&self, bytes: &[u8], expected: Offset) -> Result<BatchHeader, String> {
        let header = BatchHeader::parse(bytes).map_err(|error| error.to_string())?;
        let compacted = self.compacted_end.is_some();
        let follows = if compacted { header.base_offset() >= expected } else { header.base_offset() == expected };
        if !follows {
            return Err(format!("batch has offset {}, {expected} comes next", header.base_offset()));
        }
        let older = compacted && header.leader_epoch().is_some_and(|epoch| epoch < self.epoch);
        if header.leader_epoch() != Some(self.epoch) && !older {
            return Err(format!("batch has epoch {:?}, the segment {}", header.leader_epoch(), self.epoch));
        }
        if header.total_len() > MAX_PLAUSIBLE_BATCH {
            return Err(format!("batch claims {} bytes", header.total_len()));
        }
        Ok(header)
    }

    fn take(&mut self, header: &BatchHeader) {
        let length = header.total_len();
        self.index.add_batch(indexed(header), &self.buffer[..length]);
        self.producers.remember(header, header.base_offset());
        self.next_offset = header.next_offset();
        self.position = self.position.plus(length as u64);
        self.buffer.advance(length);
    }

    /// The file has no more bytes.
    pub fn finish(mut self) -> SegmentScan {
        let stop = self.stopped.take().unwrap_or_else(|| self.judge_rest());
        if let Some(end) = self.compacted_end.filter(|end| *end >= self.next_offset) {
            self.index.extend_to(end);
            self.next_offset = end;
        }
        let position = self.position.max(FIRST_BATCH_POSITION);
        let end = SegmentEnd { offset: self.next_offset, position };
        let index = self.index.finish(self.producers.snapshot());
        SegmentScan { end, stop, index, producers: self.producers }
    }

    /// Judges bytes that are not a whole batch.
    fn judge_rest(&self) -> ScanStop {
        if !self.header_read {
            return ScanStop::TornHeader;
        }
        if self.buffer.is_empty() {
            return ScanStop::Clean;
        }
        if self.hides_whole_batch() {
            return ScanStop::BadBatch("the batch is whole, but its length field is damaged".to_owned());
        }
        ScanStop::TornBatch
    }

    /// A damaged length field can make whole batches look like one torn batch: then the checksum matches a prefix that
    /// ends with the file or before the header of the batch that comes next.
    fn hides_whole_batch(&self) -> bool {
        if self.buffer.len() < HEADER_LEN {
            return false;
        }
        let Ok(header) = BatchHeader::parse(&self.buffer) else { return false };
        let mut crc = crc32c::crc32c(&self.buffer[CRC_COVER..HEADER_LEN]);
        for end in HEADER_LEN..=self.buffer.len() {
            if crc == header.crc() {
                let rest = &self.buffer[end..];
                let follows = rest.len() < HEADER_LEN || self.check_header(rest, header.next_offset()).is_ok();
                if follows {
                    return true;
                }
            }
            if let Some(byte) = self.buffer.get(end) {
                crc = crc32c::crc32c_append(crc, std::slice::from_ref(byte));
            }
        }
        false
    }

    /// The offset that the segment starts with.
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }
}

/// What the index takes of a stored batch.
fn indexed(header: &BatchHeader) -> IndexedBatch {
    IndexedBatch {
        base_offset: header.base_offset(),
        next_offset: header.next_offset(),
        max_timestamp_ms: header.max_timestamp(),
    }
}
