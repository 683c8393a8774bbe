//! What a classic member's assignment says, if its group is one of Kafka's consumers.
//!
//! The bytes come from the group's leader, so nothing is taken on trust: a count is believed only as far as bytes
//! follow it, and what cannot be read is an assignment that says nothing.

use bytes::{Buf, Bytes};

/// Topics and their partitions.
pub type Assigned = Vec<(String, Vec<u32>)>;

/// Reads an assignment of the `consumer` protocol, any version of it. `None` if these bytes are none.
pub fn read_assignment(mut bytes: Bytes) -> Option<Assigned> {
    let version = bytes.try_get_i16().ok()?;
    if version < 0 {
        return None;
    }
    let mut topics = Assigned::new();
    for _ in 0..count(&mut bytes, 6)? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        if length > bytes.len() {
            return None;
        }
        let name = String::from_utf8(bytes.split_to(length).to_vec()).ok()?;
        let partitions = (0..count(&mut bytes, 4)?).map(|_| bytes.try_get_i32().ok()?.try_into().ok());
        topics.push((name, partitions.collect::<Option<_>>()?));
    }
    Some(topics)
}

/// The number of items that follow; each has at least `least_bytes`.
fn count(bytes: &mut Bytes, least_bytes: usize) -> Option<usize> {
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    (count.checked_mul(least_bytes)? <= bytes.len()).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assignment() -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 6];
        bytes.extend(b"orders");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        bytes.extend([0xff, 0xff, 0xff, 0xff]);
        bytes
    }

    #[test]
    fn topics_and_partitions_are_read() {
        let read = read_assignment(assignment().into());
        assert_eq!(read, Some(vec![("orders".to_owned(), vec![0, 3])]));
        assert_eq!(read_assignment(Bytes::new()), None, "a member without one");
    }

    #[test]
    fn lengths_that_lie_say_nothing() {
        for at in 0..assignment().len() - 4 {
            assert_eq!(read_assignment(assignment()[..at].to_vec().into()), None, "cut at {at}");
        }
        let mut many = assignment();
        many[2] = 0x7f;
        assert_eq!(read_assignment(many.into()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_assignment(bytes.into());
        }
    }
}
