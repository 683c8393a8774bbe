//! Snappy as Kafka has it: blocks in the frames of `snappy-java`, or one bare block.
//!
//! ```text
//! magic (8) │ version (4) │ oldest compatible version (4) │ length (4) │ block │ length (4) │ block …
//! ```
//! Numbers are big-endian. The frames are described in the sources of `org.xerial.snappy`; a block is Google's format.

use std::io;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: i32 = 1;
const FRAME_HEADER_LEN: usize = MAGIC.len() + 4 + 4;
/// Bytes of records in one block, as the Java client makes them.
const BLOCK_LEN: usize = 32 << 10;

/// Appends `records` in framed blocks to `out`.
pub(super) fn compress(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(BLOCK_LEN) {
        let compressed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(())
}

/// Decompresses either form; `None` if that is more than `max_bytes`. What a block claims to hold is checked before
/// there is room made for it.
pub(super) fn decompress(bytes: &[u8], max_bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let mut plain = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        return Ok(add_block(bytes, max_bytes, &mut plain)?.then_some(plain));
    };
    rest = rest.get(FRAME_HEADER_LEN - MAGIC.len()..).ok_or_else(|| malformed("the frame header is cut short"))?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(|| malformed("a block has no length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let block = after.get(..length).ok_or_else(|| malformed("a block is cut short"))?;
        rest = &after[length..];
        if !add_block(block, max_bytes, &mut plain)? {
            return Ok(None);
        }
    }
    Ok(Some(plain))
}

/// Adds what a block holds. Returns whether there was room for it.
fn add_block(block: &[u8], max_bytes: usize, plain: &mut Vec<u8>) -> io::Result<bool> {
    let start = plain.len();
    let length = snap::raw::decompress_len(block)?;
    if length > max_bytes - start {
        return Ok(false);
    }
    // No element of a block makes more than 64 bytes.
    if length > block.len().saturating_mul(64) {
        return Err(malformed("a block claims more than it can hold"));
    }
    plain.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut plain[start..])?;
    Ok(true)
}

fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let plain: Vec<u8> = (0..100_000_u32).flat_map(|number| (number / 7).to_be_bytes()).collect();
        let mut framed = Vec::new();
        compress(&plain, &mut framed).unwrap();
        assert_eq!(decompress(&framed, plain.len()).unwrap().as_ref(), Some(&plain));
        assert_eq!(decompress(&framed, plain.len() - 1).unwrap(), None);
        let bare = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        assert_eq!(decompress(&bare, plain.len()).unwrap(), Some(plain.clone()));
        for cut in [3, 9, 17, 19, 40, framed.len() - 1] {
            assert!(decompress(&framed[..cut], plain.len()).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_block_that_claims_too_much_gets_no_room() {
        // 0xffffffff bytes, in a block of six.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert_eq!(decompress(&claim, 1000).unwrap(), None);
        assert!(decompress(&claim, usize::MAX - 1).is_err());
    }
}
