//! The content of `<file>.fence`: where the data file ends, and who said so. See `docs/formats/segment.md`.
//!
//! ```text
//! 0       8      12       20    24
//! | magic | kind | length | crc |
//! ```
//! The file's presence alone fences. Its content comes second: until it is whole, the end is not fixed.

use bmq_proto::BytePosition;

pub(super) const END_MARKER_LEN: usize = 24;
const MAGIC: [u8; 8] = *b"bmq-end\n";
const CHECKSUM_AT: usize = END_MARKER_LEN - 4;

/// Who ended a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndKind {
    /// Its writer, after everything was durable.
    Closed,
    /// Somebody else, while it was open: the last group may be torn.
    Fenced,
}

/// The fixed end of a data file. Bytes after `length` do not count, and may still come from a fenced writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EndMarker {
    pub kind: EndKind,
    pub length: BytePosition,
}

impl EndMarker {
    pub(super) fn encode(self) -> [u8; END_MARKER_LEN] {
        let kind: u32 = match self.kind {
            EndKind::Closed => 1,
            EndKind::Fenced => 2,
        };
        let mut bytes = [0; END_MARKER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&kind.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.length.0.to_be_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// `None` for content that is not whole.
    pub(super) fn decode(bytes: &[u8; END_MARKER_LEN]) -> Option<Self> {
        let kind = match bytes[8..12] {
            [0, 0, 0, 1] => EndKind::Closed,
            [0, 0, 0, 2] => EndKind::Fenced,
            _ => return None,
        };
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]).to_be_bytes();
        if bytes[..8] != MAGIC || bytes[CHECKSUM_AT..] != checksum {
            return None;
        }
        let length = bytes[12..20].try_into().expect("the slice is cut at eight bytes");
        Some(Self { kind, length: BytePosition(u64::from_be_bytes(length)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_reads_back_and_every_flipped_bit_is_noticed() {
        for kind in [EndKind::Closed, EndKind::Fenced] {
            let marker = EndMarker { kind, length: BytePosition(0x0102_0304_0506) };
            let bytes = marker.encode();
            assert_eq!(EndMarker::decode(&bytes), Some(marker));
            for bit in 0..END_MARKER_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(EndMarker::decode(&flipped), None, "bit {bit}");
            }
        }
    }
}
