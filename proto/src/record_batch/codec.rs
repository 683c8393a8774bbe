//! How the records of a batch are compressed, all together.
//!
//! Snappy comes in two forms, a bare block and the framed blocks of `snappy-java`: both are read, the second is
//! written, as Kafka's Java client does.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{BatchError, Bound, snappy};
use crate::ids::ParseIdError;

/// First bytes of an LZ4 frame. The library would also read the legacy frame, which no Kafka client writes and whose
/// blocks are larger.
const LZ4_FRAME_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// How records are compressed; the discriminant is the number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Codec {
    /// Every codec of the format.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with that number on the wire.
    pub(super) fn from_id(id: i16) -> Result<Self, BatchError> {
        let expected = Bound::AtMost(Self::Zstd as i64);
        let found = Self::ALL.into_iter().find(|codec| *codec as i16 == id);
        found.ok_or(BatchError::Corrupt { field: "compression codec", found: id.into(), expected })
    }

    /// The codec's name in configurations and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Appends the compressed form of `records` to `out`.
    pub(super) fn compress(self, records: &[u8], out: &mut Vec<u8>) {
        let result = match self {
            Self::None => out.write_all(records),
            Self::Lz4 => compress_lz4(records, out),
            Self::Zstd => compress_zstd(records, out),
            Self::Gzip => compress_gzip(records, out),
            Self::Snappy => snappy::compress(records, out),
        };
        result.expect("writing to memory does not fail");
    }

    /// The uncompressed form of `records`: the same bytes if they are not compressed, else at most `max_bytes`.
    ///
    /// Beyond that the decoders hold buffers of a constant size: for gzip less than 100 KiB, for LZ4 at most 13 MiB,
    /// for Zstandard a window of at most 128 MiB of address space, of which only as much is touched as was
    /// decompressed.
    pub(super) fn decompress(self, records: Bytes, max_bytes: usize) -> Result<Bytes, BatchError> {
        let result = match self {
            Self::None => return Ok(records),
            Self::Lz4 => decompress_lz4(&records, max_bytes),
            Self::Zstd => decompress_zstd(&records, max_bytes),
            Self::Gzip => read_up_to(MultiGzDecoder::new(&records[..]), max_bytes),
            Self::Snappy => {
                let plain = snappy::decompress(&records, max_bytes).transpose();
                plain.ok_or(BatchError::DecompressedTooLarge { max: max_bytes })?
            }
        };
        let plain = result.map_err(|source| BatchError::Decompress { codec: self, source })?;
        if plain.len() > max_bytes {
            return Err(BatchError::DecompressedTooLarge { max: max_bytes });
        }
        Ok(plain.into())
    }
}

fn compress_gzip(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, Compression::default());
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

fn compress_lz4(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // The Java client reads independent blocks only.
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

fn compress_zstd(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    // Lets the reader's window be no larger than the records.
    encoder.set_pledged_src_size(Some(records.len() as u64))?;
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

fn decompress_lz4(records: &[u8], max_bytes: usize) -> io::Result<Vec<u8>> {
    if !records.starts_with(&LZ4_FRAME_MAGIC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the lz4 frame magic is missing"));
    }
    read_up_to(FrameDecoder::new(records), max_bytes)
}

fn decompress_zstd(records: &[u8], max_bytes: usize) -> io::Result<Vec<u8>> {
    read_up_to(zstd::Decoder::with_buffer(records)?, max_bytes)
}

/// Reads all, or one byte more than `max_bytes`, which tells the caller that there is too much.
fn read_up_to(reader: impl Read, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take((max_bytes as u64).saturating_add(1)).read_to_end(&mut plain)?;
    Ok(plain)
}

impl fmt::Display for Codec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let found = Self::ALL.into_iter().find(|codec| codec.name() == text);
        found.ok_or_else(|| ParseIdError { what: "compression codec", text: text.to_owned() })
    }
}
