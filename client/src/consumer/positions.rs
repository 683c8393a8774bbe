//! How far each partition was read, and the records that move the positions on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bmq_proto::ErrorCode;
use bmq_proto::record_batch::{BatchError, BatchIter, RecordIter, RecordLimits, records, split_batches, verify_crc};
use bmq_proto::record_batch::{BatchHeader, Record};
use bmq_proto::v1;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Bounds, StartAt, Subscription};
use crate::{Admin, ConsumerRecord, Error, Header};

/// All partitions of a consumer.
pub(super) struct Positions {
    positions: Vec<Position>,
    by_name: ByPartition<usize>,
    bounds: SharedBounds,
}

/// How far one partition was read.
struct Position {
    topic: Arc<str>,
    partition: u32,
    /// `None`: the first one kept, whichever that is.
    next: Option<u64>,
    /// Where to stop.
    end: Option<u64>,
    /// No more is read: the end is reached, or it failed.
    over: bool,
}

impl Position {
    fn advance_to(&mut self, next: u64) {
        self.next = Some(self.next.map_or(next, |known| known.max(next)));
        self.over |= self.end.is_some_and(|end| next >= end);
    }
}

/// Something for each partition, by topic and number.
type ByPartition<T> = HashMap<Arc<str>, HashMap<u32, T>>;

/// What is known of each partition's bounds, shared with the user's handle.
#[derive(Clone, Default)]
pub(super) struct SharedBounds {
    known: Arc<Mutex<ByPartition<Bounds>>>,
}

impl SharedBounds {
    pub fn get(&self, topic: &str, partition: u32) -> Option<Bounds> {
        self.known.lock().get(topic)?.get(&partition).copied()
    }

    fn set(&self, topic: &Arc<str>, partition: u32, bounds: Bounds) {
        self.known.lock().entry(Arc::clone(topic)).or_default().insert(partition, bounds);
    }
}

impl Positions {
    /// Finds out where "latest" and times are. `InvalidArgument` if a partition is named twice, or none is.
    pub async fn start(subscriptions: Vec<Subscription>, admin: &Admin) -> Result<Self, Error> {
        let refuse = |text: String| Err(Error::not_applied(ErrorCode::InvalidArgument, text));
        if subscriptions.is_empty() {
            return refuse("there is nothing to read, name a partition".into());
        }
        let mut this = Self { positions: Vec::new(), by_name: HashMap::new(), bounds: SharedBounds::default() };
        let (mut latest, mut timed) = (Vec::new(), Vec::new());
        for Subscription { topic, partition, start } in subscriptions {
            let index = this.positions.len();
            let topic: Arc<str> = topic.into();
            let of_topic = this.by_name.entry(Arc::clone(&topic)).or_default();
            if of_topic.insert(partition, index).is_some() {
                return refuse(format!("partition {partition} of {topic} is named twice"));
            }
            let next = match start {
                StartAt::Offset(offset) => Some(offset),
                StartAt::Earliest => None,
                StartAt::Latest => {
                    latest.push(index);
                    None
                }
                StartAt::Timestamp(timestamp_ms) => {
                    timed.push((index, timestamp_ms));
                    None
                }
            };
            this.positions.push(Position { topic, partition, next, end: None, over: false });
        }
        this.ask_bounds(&latest, admin, |position, bounds| position.next = Some(bounds.high_watermark)).await?;
        this.find_times(&timed, admin).await?;
        Ok(this)
    }

    /// Asks for all partitions of a topic together that begin at the same time.
    async fn find_times(&mut self, timed: &[(usize, i64)], admin: &Admin) -> Result<(), Error> {
        let mut asked: BTreeMap<(Arc<str>, i64), Vec<u32>> = BTreeMap::new();
        for (index, timestamp_ms) in timed {
            let position = &self.positions[*index];
            asked.entry((Arc::clone(&position.topic), *timestamp_ms)).or_default().push(position.partition);
        }
        for ((topic, timestamp_ms), partitions) in asked {
            for found in admin.find_offsets(&topic, &partitions, timestamp_ms).await? {
                if let Some(index) = self.find(&topic, found.partition) {
                    self.positions[index].next = Some(found.offset);
                }
            }
        }
        for (index, _) in timed {
            let Position { topic, partition, next, .. } = &self.positions[*index];
            if next.is_none() {
                let text = format!("the server did not say where partition {partition} of {topic} begins");
                return Err(Error::protocol(text).of_a_read());
            }
        }
        Ok(())
    }

    /// Stops each partition where it ends now.
    pub async fn end_at_the_present(&mut self, admin: &Admin) -> Result<(), Error> {
        let all: Vec<usize> = (0..self.positions.len()).collect();
        let stop = |position: &mut Position, bounds: Bounds| {
            position.end = Some(bounds.high_watermark);
            // What lies beyond the end is left to the server, which says so.
            position.over |= position.next.unwrap_or(bounds.log_start) == bounds.high_watermark;
        };
        self.ask_bounds(&all, admin, stop).await
    }

    async fn ask_bounds(
        &mut self,
        indexes: &[usize],
        admin: &Admin,
        mut learn: impl FnMut(&mut Position, Bounds),
    ) -> Result<(), Error> {
        let mut by_topic: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
        for index in indexes {
            let position = &self.positions[*index];
            by_topic.entry(Arc::clone(&position.topic)).or_default().push(position.partition);
        }
        for (topic, partitions) in by_topic {
            let mut missing = partitions.len();
            for bounds in admin.list_offsets(&topic, &partitions).await? {
                let v1::PartitionBounds { partition, log_start, high_watermark, .. } = bounds;
                self.learn_bounds(&topic, partition, log_start, high_watermark);
                if let Some(index) = self.find(&topic, partition)
                    && partitions.contains(&partition)
                {
                    missing -= 1;
                    learn(&mut self.positions[index], Bounds { log_start, high_watermark });
                }
            }
            if missing > 0 {
                let text = format!("the server did not tell the bounds of all partitions of {topic}");
                return Err(Error::protocol(text).of_a_read());
            }
        }
        Ok(())
    }

    pub fn shared_bounds(&self) -> SharedBounds {
        self.bounds.clone()
    }

    /// Whether nothing is left to be read.
    pub fn all_over(&self) -> bool {
        self.positions.iter().all(|position| position.over)
    }

    /// What a new stream shall begin with.
    pub fn to_open(&self) -> Vec<v1::PartitionPosition> {
        let open = self.positions.iter().filter(|position| !position.over);
        open.map(|position| v1::PartitionPosition {
            topic: position.topic.to_string(),
            partition: position.partition,
            position: Some(v1::Position {
                at: Some(match position.next {
                    Some(offset) => v1::position::At::Offset(offset),
                    None => v1::position::At::Earliest(v1::Edge {}),
                }),
            }),
        })
        .collect()
    }

    fn find(&self, topic: &str, partition: u32) -> Option<usize> {
        self.by_name.get(topic)?.get(&partition).copied()
    }

    /// The server said where a partition begins and ends.
    pub fn learn_bounds(&self, topic: &str, partition: u32, log_start: u64, high_watermark: u64) {
        if let Some(index) = self.find(topic, partition) {
            let topic = &self.positions[index].topic;
            self.bounds.set(topic, partition, Bounds { log_start, high_watermark });
        }
    }

    /// A partition is not read any further.
    pub fn fail(&mut self, topic: &str, partition: u32) {
        if let Some(index) = self.find(topic, partition) {
            self.positions[index].over = true;
        }
    }

    /// Batches that came, to be read record by record. None if they are of no interest.
    pub fn begin(&self, batches: v1::FetchedBatches) -> Option<Fetched> {
        let index = self.find(&batches.topic, batches.partition)?;
        self.learn_bounds(&batches.topic, batches.partition, batches.log_start, batches.high_watermark);
        if self.positions[index].over {
            return None;
        }
        Some(Fetched {
            index,
            batches: split_batches(&batches.batches),
            records: None,
            next_offset: batches.next_offset,
        })
    }

    /// The next record of `fetched` that was not given out before; none when `fetched` is used up. After an error the
    /// partition is over.
    pub fn next_record(&mut self, fetched: &mut Fetched) -> Option<Result<ConsumerRecord, Error>> {
        let position = &mut self.positions[fetched.index];
        while !position.over {
            match fetched.next() {
                Ok(Some(record)) => {
                    let offset = record.offset.0;
                    if position.next.is_some_and(|next| offset < next) {
                        continue;
                    }
                    // What lies at or above the end is not given out any more.
                    let beyond = position.end.is_some_and(|end| offset >= end);
                    position.advance_to(offset + 1);
                    if !beyond {
                        return Some(Ok(consumer_record(position, record)));
                    }
                }
                Ok(None) => {
                    // Offsets without records, removed by compaction, are passed over.
                    position.advance_to(fetched.next_offset);
                    return None;
                }
                Err(error) => {
                    position.over = true;
                    let Position { topic, partition, .. } = &*position;
                    let mut error = Error::from(error);
                    error.message = format!("partition {partition} of {topic}: {}", error.message);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Batches of one partition, opened one after the other.
pub(super) struct Fetched {
    /// The place of the partition in `Positions::positions`.
    index: usize,
    batches: BatchIter,
    records: Option<RecordIter>,
    next_offset: u64,
}

impl Fetched {
    fn next(&mut self) -> Result<Option<Record>, BatchError> {
        loop {
            if let Some(record) = self.records.as_mut().and_then(Iterator::next) {
                return record.map(Some);
            }
            let Some(batch) = self.batches.next() else { return Ok(None) };
            self.records = open(batch?)?;
        }
    }
}

/// The records of a batch, unless it is one of the log's own.
fn open((header, batch): (BatchHeader, Bytes)) -> Result<Option<RecordIter>, BatchError> {
    if header.is_control() {
        return Ok(None);
    }
    verify_crc(&batch)?;
    records(&batch, &RecordLimits::default()).map(Some)
}

fn consumer_record(position: &Position, record: Record) -> ConsumerRecord {
    ConsumerRecord {
        topic: Arc::clone(&position.topic),
        partition: position.partition,
        offset: record.offset.0,
        timestamp_ms: record.timestamp,
        key: record.key,
        value: record.value,
        headers: record.headers.into_iter().map(|(key, value)| Header { key, value }).collect(),
    }
}
