//! The last offset of each key, in bounded memory.
//!
//! Keys are remembered by 128 bits that nobody outside can predict, so that no two of them pass for one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use bmq_proto::Offset;

#[derive(Debug)]
pub(super) struct KeyMap {
    newest: HashMap<[u64; 2], u64>,
    hashers: [RandomState; 2],
    max_keys: usize,
    /// Only keys whose hash ends in so many zero bits are remembered.
    left_out_bits: u32,
}

impl KeyMap {
    pub fn new(max_keys: usize) -> Self {
        let hashers = [RandomState::new(), RandomState::new()];
        Self { newest: HashMap::new(), hashers, max_keys, left_out_bits: 0 }
    }

    /// Notes a record; of one key they come in order. Returns whether there was room.
    pub fn note(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        if !self.remembers(hash) {
            return true;
        }
        if self.newest.len() >= self.max_keys && !self.newest.contains_key(&hash) {
            return false;
        }
        self.newest.insert(hash, offset.0);
        true
    }

    /// The last offset noted of a key; `None` if there was none, or the key is not remembered.
    pub fn newest(&self, key: &[u8]) -> Option<Offset> {
        self.newest.get(&self.hash(key)).copied().map(Offset)
    }

    /// Forgets about half of the keys, and does not look at them any more.
    pub fn halve(&mut self) {
        self.left_out_bits = (self.left_out_bits + 1).min(u64::BITS - 1);
        let bits = self.left_out_bits;
        self.newest.retain(|hash, _| hash[0].trailing_zeros() >= bits);
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)]
    }

    fn remembers(&self, hash: [u64; 2]) -> bool {
        hash[0].trailing_zeros() >= self.left_out_bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_counts_and_memory_is_bounded() {
        let mut keys = KeyMap::new(100);
        for number in 0..100_u64 {
            assert!(keys.note(&(number % 50).to_be_bytes(), Offset(number)));
        }
        assert_eq!(keys.newest(&7_u64.to_be_bytes()), Some(Offset(57)));
        assert_eq!(keys.newest(b"another"), None);
        for number in 1_000..2_000_u64 {
            while !keys.note(&number.to_be_bytes(), Offset(number)) {
                keys.halve();
            }
        }
        assert!(keys.newest.len() <= 100 && keys.left_out_bits > 0);
        let remembered = (1_000..2_000_u64).filter(|number| keys.newest(&number.to_be_bytes()).is_some()).count();
        assert!(remembered > 0);
        for number in 1_000..2_000_u64 {
            assert!(keys.newest(&number.to_be_bytes()).is_none_or(|newest| newest == Offset(number)));
        }
    }
}
