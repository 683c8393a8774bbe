//! The variable-length integers of a record: zigzag, then seven bits a byte, lowest first (as in Protocol Buffers).

/// Appends `value`. Kafka's varint and varlong differ only in the range of values.
pub fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that `put` appends for `value`.
pub fn len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads an integer of up to 64 bits from the start of `bytes`: its value, and how many bytes it takes.
/// `None` if it does not end within `bytes` or has more than 64 bits.
pub fn get(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut raw = 0_u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for the topmost bit only.
        if index == 9 && bits > 1 {
            return None;
        }
        raw |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((unzigzag(raw), index + 1));
        }
    }
    None
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(value: i64, expected: &[u8]) {
        let mut out = Vec::new();
        put(&mut out, value);
        assert_eq!(out, expected, "value {value}");
        assert_eq!(len(value), expected.len(), "value {value}");
        assert_eq!(get(expected), Some((value, expected.len())), "value {value}");
    }

    #[test]
    fn known_encodings() {
        check(0, &[0x00]);
        check(-1, &[0x01]);
        check(1, &[0x02]);
        check(63, &[0x7e]);
        check(-64, &[0x7f]);
        check(64, &[0x80, 0x01]);
        check(i32::MAX.into(), &[0xfe, 0xff, 0xff, 0xff, 0x0f]);
        check(i32::MIN.into(), &[0xff, 0xff, 0xff, 0xff, 0x0f]);
        check(i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        check(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }

    #[test]
    fn refuses_what_does_not_end() {
        assert_eq!(get(&[]), None);
        assert_eq!(get(&[0x80]), None);
        assert_eq!(get(&[0x80; 20]), None);
        assert_eq!(get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None, "65 bits");
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, rest: Vec<u8>) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let end = out.len();
            out.extend(rest);
            prop_assert_eq!(get(&out), Some((value, end)));
        }
    }
}
