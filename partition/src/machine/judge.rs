//! Torn or damaged? The one decision that must never take a shorter copy for the whole.
//!
//! A batch that nobody was told is durable may be torn: the file ends inside it. Anything missing or failing below a
//! position known to have been durable is damage, and only an operator may accept it.

use bmq_proto::BytePosition;

use super::{OpenScan, ScanStop};

/// Says why the open file is damaged, if it is. Everything below `floor` was known to be covered; below `checkpoint`,
/// where a batch ended, everything was known to be good.
pub(super) fn damage(scan: &OpenScan, floor: BytePosition, checkpoint: BytePosition) -> Option<String> {
    let required = floor.max(checkpoint);
    if let ScanStop::BadHeader(reason) = &scan.stop {
        return Some(format!("file {} has a damaged header: {reason}", scan.file));
    }
    if scan.end.position >= required {
        return None;
    }
    let at = scan.end.position;
    let file = scan.file;
    if scan.length < required {
        return Some(format!("file {file} has {} bytes, {required} were known to be there", scan.length));
    }
    match &scan.stop {
        // The floor lies inside a batch that the file's end cuts: what it covers of that batch was never acknowledged.
        ScanStop::TornBatch if at >= checkpoint => None,
        ScanStop::TornBatch => {
            Some(format!("file {file} is damaged at byte {at}: a batch seems cut, below {checkpoint} known to be good"))
        }
        ScanStop::TornHeader => {
            Some(format!("file {file} has no whole header, {required} bytes were known to be there"))
        }
        ScanStop::Clean => Some(format!("file {file} ends at {at}, {required} bytes were known to be there")),
        ScanStop::BadHeader(reason) | ScanStop::BadBatch(reason) => {
            Some(format!("file {file} is damaged at byte {at}, below {required} known to be good: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::meta::SegmentEnd;
    use bmq_proto::{Epoch, FileId, Offset};

    fn check(length: u64, end: u64, stop: ScanStop, required: u64, damaged: bool) {
        let scan = OpenScan {
            file: FileId { epoch: Epoch(1), nonce: 1 },
            length: BytePosition(length),
            end: SegmentEnd { offset: Offset(0), position: BytePosition(end) },
            stop,
        };
        let found = damage(&scan, BytePosition(required), BytePosition::ZERO);
        assert_eq!(found.is_some(), damaged, "{scan:?} required {required}: {found:?}");
        // What a checkpoint knows is never torn.
        let found = damage(&scan, BytePosition::ZERO, BytePosition(required));
        assert_eq!(found.is_some(), damaged || end < required, "{scan:?} checkpoint {required}: {found:?}");
    }

    #[test]
    fn only_what_was_known_can_be_missing() {
        let bad = || ScanStop::BadBatch("crc".to_owned());
        check(1000, 1000, ScanStop::Clean, 1000, false);
        check(900, 900, ScanStop::Clean, 1000, true);
        check(1000, 900, ScanStop::TornBatch, 900, false);
        check(1000, 900, ScanStop::TornBatch, 950, false);
        check(940, 900, ScanStop::TornBatch, 950, true);
        check(1000, 900, bad(), 900, false);
        check(1000, 900, bad(), 1000, true);
        check(300, 512, ScanStop::TornHeader, 512, false);
        check(300, 512, ScanStop::TornHeader, 600, true);
        check(600, 512, ScanStop::BadHeader("crc".to_owned()), 0, true);
    }
}
