//! Histories that are right, and one that is wrong in each way.

use super::*;

const PARTITION: u32 = 0;

fn id(producer: u32, sequence: u64) -> PayloadId {
    PayloadId { producer, partition: PARTITION, sequence }
}

fn at(offset: u64) -> Place {
    Place { partition: PARTITION, offset }
}

/// Record `n` of producer 0 is sent at 10n and acknowledged 15 later, at offset `n`, so that neighbours overlap.
fn acked(id: PayloadId, offset: u64) -> Entry {
    let sent_at = 10 * offset as i64;
    Entry::Acked { id, offset, deduplicated: false, sent_at, acked_at: sent_at + 15 }
}

fn unknown(id: PayloadId, sent_at: i64) -> Entry {
    Entry::Unknown { id, sent_at, failed_at: sent_at + 1, error: "it timed out".to_owned() }
}

fn refused(id: PayloadId, sent_at: i64) -> Entry {
    Entry::Refused { id, sent_at, failed_at: sent_at + 1, error: "it is too large".to_owned() }
}

fn read(offset: u64, id: PayloadId) -> ReadRecord {
    ReadRecord { partition: PARTITION, offset, payload: id.payload() }
}

/// Three records of one producer, each acknowledged and read.
fn journal() -> Vec<Entry> {
    (0..3).map(|n| acked(id(0, n), n)).collect()
}

fn records() -> Vec<ReadRecord> {
    (0..3).map(|n| read(n, id(0, n))).collect()
}

fn check(journal: &[Entry], records: &[ReadRecord], expect: &[Violation]) {
    assert_eq!(judge(journal, records), expect);
}

#[test]
fn right_histories_pass() {
    check(&[], &[], &[]);
    check(&journal(), &records(), &[]);
    let seen = Entry::Seen { partition: PARTITION, offset: 2, id: Some(id(0, 2)) };
    check(&[journal(), vec![seen]].concat(), &records(), &[]);
}

#[test]
fn what_is_unknown_may_be_there_or_not() {
    let journal = [journal(), vec![unknown(id(0, 3), 30)]].concat();
    check(&journal, &records(), &[]);
    check(&journal, &[records(), vec![read(3, id(0, 3))]].concat(), &[]);
}

#[test]
fn what_was_refused_must_not_be_there() {
    let journal = [journal(), vec![refused(id(0, 3), 30)]].concat();
    check(&journal, &records(), &[]);
    let late = id(0, 3);
    let written = [records(), vec![read(3, late)]].concat();
    check(&journal, &written, &[Violation::WrittenAfterAll { id: late, at: at(3) }]);
}

#[test]
fn a_lost_record() {
    check(&journal(), &records()[..2], &[Violation::Lost { id: id(0, 2), acked: at(2) }]);
}

#[test]
fn a_record_lost_from_the_middle() {
    let records = [read(0, id(0, 0)), read(2, id(0, 2))];
    let gap = Violation::Gap { partition: PARTITION, expected: 1, found: 2 };
    check(&journal(), &records, &[gap, Violation::Lost { id: id(0, 1), acked: at(1) }]);
}

#[test]
fn a_record_lost_and_its_offset_given_to_another() {
    let other = id(1, 0);
    let journal = [journal(), vec![unknown(other, 20)]].concat();
    let records = [read(0, id(0, 0)), read(1, id(0, 1)), read(2, other)];
    check(&journal, &records, &[Violation::Lost { id: id(0, 2), acked: at(2) }]);
}

#[test]
fn a_duplicated_record() {
    let records = [records(), vec![read(3, id(0, 2))]].concat();
    check(&journal(), &records, &[Violation::Duplicated { id: id(0, 2), first: at(2), again: at(3) }]);
}

#[test]
fn a_duplicate_of_an_unknown_record() {
    let twice = id(1, 0);
    let journal = [journal(), vec![unknown(twice, 30)]].concat();
    let records = [records(), vec![read(3, twice), read(4, twice)]].concat();
    check(&journal, &records, &[Violation::Duplicated { id: twice, first: at(3), again: at(4) }]);
}

#[test]
fn records_out_of_order() {
    let journal = [unknown(id(0, 0), 0), unknown(id(0, 1), 1)];
    let records = [read(0, id(0, 1)), read(1, id(0, 0))];
    check(&journal, &records, &[Violation::Reordered { id: id(0, 0), at: at(1), after: 1 }]);
}

#[test]
fn a_record_before_one_acknowledged_when_it_was_sent() {
    let late = id(1, 0);
    let journal = [acked(id(0, 1), 1), unknown(late, 26)];
    check(&journal, &[read(0, late), read(1, id(0, 1))], &[Violation::Overtook { id: late, at: at(0) }]);
}

#[test]
fn a_torn_record() {
    let mut records = records();
    records[2].payload.pop();
    let expect = [Violation::Torn { at: at(2) }, Violation::Lost { id: id(0, 2), acked: at(2) }];
    check(&journal(), &records, &expect);
}

#[test]
fn an_invented_record() {
    let records = [records(), vec![read(3, id(7, 0))]].concat();
    check(&journal(), &records, &[Violation::Invented { id: id(7, 0), at: at(3) }]);
}

#[test]
fn a_record_in_a_partition_that_is_not_its_own() {
    let astray = PayloadId { producer: 1, partition: 1, sequence: 0 };
    let journal = [journal(), vec![unknown(astray, 30)]].concat();
    let records = [records(), vec![read(3, astray)]].concat();
    check(&journal, &records, &[Violation::Invented { id: astray, at: at(3) }]);
}

#[test]
fn a_record_at_another_offset_than_acknowledged() {
    let mut journal = journal();
    journal[2] = acked(id(0, 2), 3);
    check(&journal, &records(), &[Violation::Moved { id: id(0, 2), acked: at(3), found: at(2) }]);
}

#[test]
fn a_record_that_changed_after_it_was_seen() {
    let other = id(1, 0);
    let seen = Entry::Seen { partition: PARTITION, offset: 2, id: Some(other) };
    let expect = Violation::Changed { at: at(2), seen: Some(other), read: Some(id(0, 2)) };
    check(&[journal(), vec![seen]].concat(), &records(), &[expect]);
}

#[test]
fn a_record_that_vanished_after_it_was_seen() {
    let seen = Entry::Seen { partition: PARTITION, offset: 3, id: Some(id(1, 0)) };
    let expect = Violation::Changed { at: at(3), seen: Some(id(1, 0)), read: None };
    check(&[journal(), vec![seen]].concat(), &records(), &[expect]);
}

#[test]
fn offsets_that_do_not_begin_at_the_beginning() {
    let gap = Violation::Gap { partition: PARTITION, expected: 0, found: 1 };
    check(&journal()[1..], &records()[1..], &[gap]);
}
