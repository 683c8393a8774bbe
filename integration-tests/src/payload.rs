//! Values that say what they are, so that whoever reads one back can tell which record it is and that it is whole.
//!
//! `producer-partition-sequence:filler:checksum`, all ASCII; the checksum is CRC-32 (IEEE), in eight hex digits, of
//! everything before its colon.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The shortest and the longest filler, in bytes. Lengths differ so that batches do not end where blocks of storage do.
const FILLER_BYTES: std::ops::Range<u64> = 20..400;

/// Which record it is: sequences count from 0 for each producer and partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PayloadId {
    pub producer: u32,
    pub partition: u32,
    pub sequence: u64,
}

impl PayloadId {
    /// The record's value.
    pub fn payload(self) -> Vec<u8> {
        // Spreads neighbouring sequences over all lengths.
        let mixed = (self.sequence ^ u64::from(self.producer) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let length = FILLER_BYTES.start + mixed % (FILLER_BYTES.end - FILLER_BYTES.start);
        let letter = |at| char::from(b'a' + ((mixed + at) % 26) as u8);
        let body = format!("{self}:{}", (0..length).map(letter).collect::<String>());
        format!("{body}:{:08x}", crc32fast::hash(body.as_bytes())).into_bytes()
    }

    /// Reads a value back; `None` unless it is whole.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(payload).ok()?;
        let (body, checksum) = text.rsplit_once(':')?;
        let expected = format!("{:08x}", crc32fast::hash(body.as_bytes()));
        if checksum != expected {
            return None;
        }
        let mut numbers = body.split_once(':')?.0.split('-');
        let producer = numbers.next()?.parse().ok()?;
        let partition = numbers.next()?.parse().ok()?;
        let sequence = numbers.next()?.parse().ok()?;
        numbers.next().is_none().then_some(Self { producer, partition, sequence })
    }
}

impl fmt::Display for PayloadId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}-{}", self.producer, self.partition, self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for sequence in 0..1000 {
            let id = PayloadId { producer: 3, partition: 7, sequence };
            assert_eq!(PayloadId::parse(&id.payload()), Some(id));
        }
    }

    #[test]
    fn any_damage_shows() {
        let payload = PayloadId { producer: 3, partition: 7, sequence: 42 }.payload();
        for length in 0..payload.len() {
            assert_eq!(PayloadId::parse(&payload[..length]), None, "cut to {length}");
        }
        for at in 0..payload.len() {
            let mut damaged = payload.clone();
            damaged[at] ^= 1;
            assert_eq!(PayloadId::parse(&damaged), None, "byte {at}");
        }
    }
}
