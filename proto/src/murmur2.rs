//! Which partition a key belongs to: the hash and the rule of Kafka's default partitioner.
//!
//! Every producer of a topic, ours or a Kafka client, must send one key to one partition, so this is an interface
//! and never changes. The hash is MurmurHash2, 32 bits, by Austin Appleby, with the seed that Kafka uses.

use crate::ids::PartitionId;

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition, of `partition_count`, that records with this key go to.
///
/// # Panics
/// If `partition_count` is 0: a topic has at least one partition.
pub fn partition_for_key(key: &[u8], partition_count: u32) -> PartitionId {
    assert!(partition_count > 0, "a topic has at least one partition");
    // Kafka makes the hash positive by dropping the sign bit, not by taking the absolute value.
    let positive = murmur2(key) as u32 & 0x7fff_ffff;
    PartitionId(positive % partition_count)
}

/// Kafka's 32-bit MurmurHash2 of `data`, signed as Kafka shows it.
pub fn murmur2(data: &[u8]) -> i32 {
    // The length is mixed in as 32 bits, as the original does.
    let mut hash = SEED ^ data.len() as u32;

    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        k ^= k >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ k.wrapping_mul(MULTIPLIER);
    }

    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }

    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_those_of_the_java_client() {
        let expected: [(&[u8], i32); 9] = [
            (b"", 275_646_681),
            (b"a", -1_563_381_124),
            (b"ab", 316_155_434),
            (b"21", -973_932_308),
            (b"abc", 479_470_107),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key), hash, "key {:?}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn bytes_above_127_are_not_sign_extended() {
        let key = [0xff, 0x80, 0x7f, 0xfe, 0xc0, 0x81, 0xff];
        let hashes =
            [-311_467_685, -442_788_720, 968_261_134, -1_882_716_587, -900_320_464, 1_544_999_456, -194_272_180];
        let partitions_of_12 = [3, 8, 10, 9, 4, 8, 4];
        for len in 1..=key.len() {
            assert_eq!(murmur2(&key[..len]), hashes[len - 1], "length {len}");
            assert_eq!(partition_for_key(&key[..len], 12), PartitionId(partitions_of_12[len - 1]), "length {len}");
        }
    }

    #[test]
    fn one_partition_takes_every_key() {
        for key in [&b""[..], b"a", b"foobar"] {
            assert_eq!(partition_for_key(key, 1), PartitionId(0));
        }
    }
}
