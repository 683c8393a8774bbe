//! Commands about one partition, and reads of its records.
//!
//! Segments and garbage change only together with their head, so a head that is the same before and after a read, or at
//! the commit, vouches for what was read between.

use std::collections::BTreeMap;

use bmq_proto::meta::{
    Checkpoint, GarbageRecord, Intent, MAX_DROPPED_SEGMENTS, PartitionCommand, PartitionCommandKind, PartitionHead,
    PartitionView, SegmentRecord,
};
use bmq_proto::rpc::record::{StoredRecord, encode_record};
use bmq_proto::{Offset, ServiceError, TopicPartition};

use super::attempts::{Attempts, Commit};
use super::{MetaServer, decode, decode_optional};
use crate::keys;
use crate::store::{Entry, Expected, ListRequest, Order, Transaction, Version, Versioned, after_key, prefix_end};
use crate::transition::{self, Changes, NeededSegments, PartitionRecords};

/// Most segments of one answer.
const MAX_SEGMENTS: usize = 1_000;

/// What was read for a command, with a compare for each record that may change without the head.
struct Loaded {
    head: Option<Versioned>,
    records: PartitionRecords,
    intent: Option<Intent>,
    compares: Transaction,
}

impl MetaServer {
    pub(super) async fn do_command(&self, command: PartitionCommand) -> Result<PartitionView, ServiceError> {
        let mut attempts = self.attempts(command.kind.name());
        loop {
            let loaded = load(&mut attempts, &command).await?;
            let mut records = loaded.records;
            let changes = match transition::apply(&records, loaded.intent.as_ref(), &command) {
                Ok(changes) => changes,
                Err(refused) => {
                    if !is_head(&mut attempts, command.partition, loaded.head.as_ref()).await? {
                        attempts.pause_after_conflict().await?;
                        continue;
                    }
                    return Err(attempts.refusal(refused));
                }
            };
            if changes.is_empty() && !matches!(command.kind, PartitionCommandKind::Claim { .. }) {
                return Ok(transition::answer(&records, &command));
            }
            let transaction = write(loaded.compares, command.partition, &changes);
            match attempts.commit(transaction).await? {
                Commit::Again => continue,
                Commit::Done => {}
            }
            tracing::debug!(partition = %command.partition, command = command.kind.name(), "command applied");
            records.absorb(changes);
            return Ok(transition::answer(&records, &command));
        }
    }

    pub(super) async fn do_partition(&self, partition: TopicPartition) -> Result<PartitionView, ServiceError> {
        let mut attempts = self.attempts("partition");
        loop {
            let head = attempts.get(&keys::head(partition)).await?;
            let segments = attempts.list_records(&keys::segments(partition)).await?;
            let key = keys::checkpoint(partition);
            let checkpoint = attempts.get(&key).await?;
            if is_head(&mut attempts, partition, head.as_ref()).await? {
                let head = decode_head(partition, head.as_ref())?;
                return Ok(PartitionView { head, segments, checkpoint: decode_checkpoint(&key, checkpoint.as_ref()) });
            }
            attempts.pause_after_conflict().await?;
        }
    }

    pub(super) async fn do_segments_from(
        &self,
        partition: TopicPartition,
        from: Offset,
        limit: usize,
    ) -> Result<PartitionView, ServiceError> {
        let limit = limit.clamp(1, MAX_SEGMENTS);
        let mut attempts = self.attempts("segments");
        loop {
            let head = attempts.get(&keys::head(partition)).await?;
            let below = last_up_to(&mut attempts, partition, from, 1).await?;
            let start = below.first().map_or_else(|| keys::segment(partition, from), |entry| entry.key.clone());
            let end = prefix_end(&keys::segments(partition));
            let request = ListRequest { start, end, order: Order::Ascending, limit: limit + 1, at: None };
            let entries = attempts.list_page(request).await?;
            if !is_head(&mut attempts, partition, head.as_ref()).await? {
                attempts.pause_after_conflict().await?;
                continue;
            }
            let segments = entries.iter().map(decode_segment).collect::<Result<Vec<_>, _>>()?;
            let reaches = |segment: &SegmentRecord| segment.end().is_none_or(|end| end.offset > from);
            let segments = segments.into_iter().filter(reaches).take(limit).collect();
            let head = decode_head(partition, head.as_ref())?;
            return Ok(PartitionView { head, segments, checkpoint: None });
        }
    }
}

/// Reads what the command needs: all single records at one revision, then the segments.
async fn load(attempts: &mut Attempts<'_>, command: &PartitionCommand) -> Result<Loaded, ServiceError> {
    let partition = command.partition;
    let needs = transition::needs(&command.kind);
    let guarded = [
        Some(keys::head(partition)),
        needs.intent.then(|| keys::intent(partition)),
        needs.checkpoint.then(|| keys::checkpoint(partition)),
    ];
    let garbage = needs.garbage.map(|file| keys::garbage(partition, file));
    let keys: Vec<_> = guarded.iter().chain([&garbage]).flatten().cloned().collect();
    let values = attempts.get_many(&keys).await?;
    let read: BTreeMap<_, _> = keys.iter().zip(&values).collect();
    let find = |key: &Option<String>| key.as_ref().and_then(|key| read.get(key)?.as_ref());

    let head = find(&guarded[0]).cloned();
    let mut records = PartitionRecords { head: decode_head(partition, head.as_ref())?, ..Default::default() };
    let intent = decode_found(&guarded[1], find(&guarded[1]))?;
    records.checkpoint = guarded[2].as_deref().and_then(|key| decode_checkpoint(key, find(&guarded[2])));
    let dropped: Option<GarbageRecord> = decode_found(&garbage, find(&garbage))?;
    records.garbage = dropped.map(|record| (record.file, record)).into_iter().collect();
    // Garbage and segments are vouched for by the head.
    let compares = guarded.iter().flatten().fold(Transaction::default(), |compares, key| {
        compares.expect(key, Expected::unchanged(read.get(key).and_then(|value| value.as_ref())))
    });
    records.segments = load_segments(attempts, partition, &records.head, needs.segments).await?;
    Ok(Loaded { head, records, intent, compares })
}

async fn load_segments(
    attempts: &mut Attempts<'_>,
    partition: TopicPartition,
    head: &PartitionHead,
    needed: NeededSegments,
) -> Result<BTreeMap<Offset, SegmentRecord>, ServiceError> {
    let mut entries = match needed {
        NeededSegments::All => attempts.list(&keys::segments(partition)).await?,
        NeededSegments::LastUpTo(offset) => last_up_to(attempts, partition, offset, 2).await?,
        NeededSegments::At(offset) => last_up_to(attempts, partition, offset, 1).await?,
        NeededSegments::First(limit) => first(attempts, partition, limit).await?,
        NeededSegments::Between(first, last) => between(attempts, partition, first, last).await?,
        NeededSegments::None => Vec::new(),
    };
    if head.open.is_some() && needed != NeededSegments::All {
        entries.extend(last_up_to(attempts, partition, head.sealed_end, 1).await?);
    }
    let record = |entry: &Entry| decode_segment(entry).map(|segment| (segment.base_offset, segment));
    entries.iter().map(record).collect()
}

/// The last segments that start at or below `offset`, the highest first.
async fn last_up_to(
    attempts: &mut Attempts<'_>,
    partition: TopicPartition,
    offset: Offset,
    limit: usize,
) -> Result<Vec<Entry>, ServiceError> {
    let start = keys::segments(partition);
    let end = after_key(&keys::segment(partition, offset));
    attempts.list_page(ListRequest { start, end, order: Order::Descending, limit, at: None }).await
}

/// The oldest segments.
async fn first(
    attempts: &mut Attempts<'_>,
    partition: TopicPartition,
    limit: usize,
) -> Result<Vec<Entry>, ServiceError> {
    attempts.list_page(ListRequest { limit, ..ListRequest::prefix(&keys::segments(partition)) }).await
}

/// The segments that start from `first` to `last`; more than a command may name are not looked for.
async fn between(
    attempts: &mut Attempts<'_>,
    partition: TopicPartition,
    first: Offset,
    last: Offset,
) -> Result<Vec<Entry>, ServiceError> {
    let (start, end) = (keys::segment(partition, first), after_key(&keys::segment(partition, last)));
    let limit = MAX_DROPPED_SEGMENTS;
    attempts.list_page(ListRequest { start, end, order: Order::Ascending, limit, at: None }).await
}

/// Whether the head still is what was read.
async fn is_head(
    attempts: &mut Attempts<'_>,
    partition: TopicPartition,
    read: Option<&Versioned>,
) -> Result<bool, ServiceError> {
    let version = |head: &Versioned| -> Version { head.version };
    let now = attempts.get(&keys::head(partition)).await?;
    Ok(now.as_ref().map(version) == read.map(version))
}

fn write(mut transaction: Transaction, partition: TopicPartition, changes: &Changes) -> Transaction {
    if let Some(head) = &changes.head {
        transaction = transaction.put(keys::head(partition), encode_record(head));
    }
    if let Some(checkpoint) = &changes.checkpoint {
        transaction = transaction.put(keys::checkpoint(partition), encode_record(checkpoint));
    }
    for (base_offset, segment) in &changes.segments {
        let key = keys::segment(partition, *base_offset);
        transaction = match segment {
            Some(segment) => transaction.put(key, encode_record(segment)),
            None => transaction.delete(key),
        };
    }
    for (file, garbage) in &changes.garbage {
        let key = keys::garbage(partition, *file);
        transaction = match garbage {
            Some(garbage) => transaction.put(key, encode_record(garbage)),
            None => transaction.delete(key),
        };
    }
    transaction
}

fn decode_head(partition: TopicPartition, head: Option<&Versioned>) -> Result<PartitionHead, ServiceError> {
    Ok(decode_optional(&keys::head(partition), head)?.unwrap_or_default())
}

/// A checkpoint that cannot be read counts as none: it only says how much must be found, and the next one replaces it.
/// To refuse the partition for it would hide records that are there.
fn decode_checkpoint(key: &str, found: Option<&Versioned>) -> Option<Checkpoint> {
    decode_optional(key, found).unwrap_or_default()
}

fn decode_found<R: StoredRecord>(key: &Option<String>, found: Option<&Versioned>) -> Result<Option<R>, ServiceError> {
    key.as_ref().map_or(Ok(None), |key| decode_optional(key, found))
}

fn decode_segment(entry: &Entry) -> Result<SegmentRecord, ServiceError> {
    decode(&entry.key, &entry.value)
}
