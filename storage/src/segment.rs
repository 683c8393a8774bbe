//! The segment file's header: 512 bytes before the first record batch. See `docs/formats/segment.md`.
//!
//! ```text
//! 0      8       12       28     44         48      52       60      508   512
//! | magic | version | cluster | topic | partition | epoch | nonce | zeros | crc |
//! ```
//! Numbers are big-endian, as in the record batches that follow; the checksum is CRC-32 (IEEE) over bytes 0..508.

use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bytes::{BufMut, Bytes, BytesMut};

use crate::SegmentPath;

/// Length of the header in bytes: one disk sector, so that batches begin aligned.
pub const SEGMENT_HEADER_LEN: usize = 512;

/// Where the first batch of a segment file stands.
pub const FIRST_BATCH_POSITION: BytePosition = BytePosition(SEGMENT_HEADER_LEN as u64);

const MAGIC: [u8; 8] = *b"bmq-seg\n";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = SEGMENT_HEADER_LEN - 4;

/// What a segment file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub cluster: ClusterId,
    pub partition: TopicPartition,
    pub file: FileId,
}

/// A header that is not one, or not this file's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("header has {have} bytes of {SEGMENT_HEADER_LEN}")]
    Short { have: usize },
    #[error("header does not begin with the segment magic")]
    Magic,
    #[error("header has version {found}, this program reads {VERSION}")]
    Version { found: u32 },
    #[error("header checksum is {found:08x}, computed {computed:08x}")]
    Checksum { found: u32, computed: u32 },
    #[error("header names {found:?}, the file is {expected:?}")]
    OtherFile { found: Box<SegmentHeader>, expected: Box<SegmentHeader> },
}

impl SegmentHeader {
    /// The header that the file at `path` must have.
    pub fn of(path: SegmentPath) -> Self {
        Self { cluster: path.folder.cluster, partition: path.folder.partition, file: path.file }
    }

    /// The header's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(SEGMENT_HEADER_LEN);
        out.put_slice(&MAGIC);
        out.put_u32(VERSION);
        out.put_slice(&self.cluster.0);
        out.put_slice(&self.partition.topic.0);
        out.put_u32(self.partition.partition.0);
        out.put_u32(self.file.epoch.0);
        out.put_u64(self.file.nonce);
        out.resize(CHECKSUM_AT, 0);
        let checksum = crc32fast::hash(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// Reads a header from the first bytes of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header: &[u8; SEGMENT_HEADER_LEN] = bytes
            .get(..SEGMENT_HEADER_LEN)
            .and_then(|slice| slice.try_into().ok())
            .ok_or(HeaderError::Short { have: bytes.len() })?;
        if header[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = number(&header[8..12]) as u32;
        if version != VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let found = number(&header[CHECKSUM_AT..]) as u32;
        let computed = crc32fast::hash(&header[..CHECKSUM_AT]);
        if found != computed {
            return Err(HeaderError::Checksum { found, computed });
        }
        Ok(Self {
            cluster: ClusterId(sixteen(&header[12..28])),
            partition: TopicPartition {
                topic: TopicId(sixteen(&header[28..44])),
                partition: PartitionId(number(&header[44..48]) as u32),
            },
            file: FileId { epoch: Epoch(number(&header[48..52]) as u32), nonce: number(&header[52..60]) },
        })
    }

    /// Reads a header and checks that it is the one of the file at `path`.
    pub fn check(bytes: &[u8], path: SegmentPath) -> Result<(), HeaderError> {
        let found = Self::decode(bytes)?;
        let expected = Self::of(path);
        if found != expected {
            return Err(HeaderError::OtherFile { found: Box::new(found), expected: Box::new(expected) });
        }
        Ok(())
    }
}

/// A big-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn sixteen(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().expect("the slice is cut at sixteen bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FolderPath;

    fn path() -> SegmentPath {
        let partition = TopicPartition { topic: TopicId([2; 16]), partition: PartitionId(3) };
        FolderPath::new(ClusterId([1; 16]), partition).segment(FileId { epoch: Epoch(4), nonce: 5 })
    }

    #[test]
    fn a_header_reads_back() {
        let bytes = SegmentHeader::of(path()).encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_LEN);
        assert_eq!(SegmentHeader::check(&bytes, path()), Ok(()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = SegmentHeader::of(path()).encode();
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << (at % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn another_files_header_is_refused() {
        let other = path().folder.segment(FileId { epoch: Epoch(4), nonce: 6 });
        let bytes = SegmentHeader::of(other).encode();
        assert!(matches!(SegmentHeader::check(&bytes, path()), Err(HeaderError::OtherFile { .. })));
        assert_eq!(SegmentHeader::decode(&bytes[..511]), Err(HeaderError::Short { have: 511 }));
    }
}
