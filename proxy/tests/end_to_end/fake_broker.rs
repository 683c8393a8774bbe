//! Brokers in memory over one shared set of logs, with hands on what goes wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bmq_proto::broker::*;
use bmq_proto::meta::SessionRecord;
use bmq_proto::record_batch::{BatchHeader, patch_assigned};
use bmq_proto::*;
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// One partition, as the storage and its owner know it.
#[derive(Default)]
pub struct Log {
    pub epoch: Epoch,
    pub owner: Option<NodeId>,
    pub start: Offset,
    /// The owner holds nothing below.
    pub retained_from: Offset,
    pub batches: Vec<(BatchHeader, Bytes)>,
    pub high_watermark: Offset,
    /// Appended batches do not become visible.
    pub hold_high_watermark: bool,
}

impl Log {
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, |(header, _)| header.next_offset())
    }

    fn bounds(&self) -> PartitionBounds {
        PartitionBounds { epoch: self.epoch, log_start: self.start, high_watermark: self.high_watermark }
    }

    /// Appends, or finds an idempotent batch that is there.
    pub fn append(&mut self, batch: &Bytes) -> Appended {
        let sent = BatchHeader::parse(batch).unwrap();
        let is_same = |(header, _): &&(BatchHeader, Bytes)| {
            sent.producer().is_some()
                && (header.producer(), header.base_sequence()) == (sent.producer(), sent.base_sequence())
        };
        if let Some((header, _)) = self.batches.iter().find(is_same) {
            return Appended { base_offset: header.base_offset(), deduplicated: true, append_time_ms: None };
        }
        let base_offset = self.end();
        let mut bytes = batch.to_vec();
        patch_assigned(&mut bytes, base_offset, self.epoch);
        let bytes = Bytes::from(bytes);
        self.batches.push((BatchHeader::parse(&bytes).unwrap(), bytes));
        if !self.hold_high_watermark {
            self.high_watermark = self.end();
        }
        Appended { base_offset, deduplicated: false, append_time_ms: None }
    }

    /// Visible batches from the one that holds `offset` on: at least one, up to `max_bytes`.
    fn visible(&self, offset: Offset, max_bytes: usize) -> (Offset, Bytes) {
        let mut taken = Vec::new();
        let mut next = offset;
        for (header, bytes) in &self.batches {
            if header.next_offset() <= offset || header.next_offset() > self.high_watermark {
                continue;
            }
            if !taken.is_empty() && taken.len() + bytes.len() > max_bytes {
                break;
            }
            taken.extend_from_slice(bytes);
            next = header.next_offset();
        }
        (next, taken.into())
    }
}

/// All logs; every broker sees them, as every broker sees the storage.
#[derive(Default)]
pub struct Logs {
    logs: Mutex<HashMap<TopicPartition, Log>>,
    changed: watch::Sender<u64>,
}

impl Logs {
    pub fn with<T>(&self, partition: TopicPartition, act: impl FnOnce(&mut Log) -> T) -> T {
        let done = act(self.logs.lock().entry(partition).or_default());
        self.changed.send_modify(|changes| *changes += 1);
        done
    }
}

pub struct FakeBroker {
    pub node: NodeId,
    logs: Arc<Logs>,
    /// Appends are looked at only while this is true.
    pub taking: watch::Sender<bool>,
    /// Batches that were received.
    pub received: watch::Sender<u64>,
    /// Answers reach the proxy only while this is true.
    pub answering: watch::Sender<bool>,
    /// Grows when all streams break.
    breaks: watch::Sender<u64>,
    pub reads: AtomicU64,
}

impl FakeBroker {
    pub fn new(node: u32, logs: Arc<Logs>) -> Arc<Self> {
        Arc::new(Self {
            node: NodeId(node),
            logs,
            taking: watch::Sender::new(true),
            received: watch::Sender::new(0),
            answering: watch::Sender::new(true),
            breaks: watch::Sender::new(0),
            reads: AtomicU64::new(0),
        })
    }

    pub fn break_streams(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    fn as_owner<T>(
        &self,
        partition: TopicPartition,
        epoch: Option<Epoch>,
        act: impl FnOnce(&mut Log) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        self.logs.with(partition, |log| {
            if log.owner != Some(self.node) {
                return Err(ServiceError::not_applied(ErrorCode::NotOwner, "not mine"));
            }
            if epoch.is_some_and(|epoch| epoch != log.epoch) {
                return Err(ServiceError::not_applied(ErrorCode::Fenced, "another epoch"));
            }
            act(log)
        })
    }

    /// The task behind one append stream.
    async fn take_items(
        self: Arc<Self>,
        mut items: mpsc::Receiver<Vec<AppendItem>>,
        answers: mpsc::Sender<Vec<AppendAnswer>>,
    ) {
        let mut refused: HashMap<(u64, TopicPartition), u32> = HashMap::new();
        while let Some(items) = items.recv().await {
            self.received.send_modify(|received| *received += items.len() as u64);
            self.taking.subscribe().wait_for(|taking| *taking).await.unwrap();
            for item in items {
                let lane = (item.channel, item.partition);
                let result = if refused.get(&lane).is_some_and(|generation| *generation >= item.generation) {
                    Err(ServiceError::not_applied(ErrorCode::OutOfTurn, "an earlier one was refused"))
                } else {
                    self.as_owner(item.partition, Some(item.epoch), |log| Ok(log.append(&item.batch)))
                };
                if result.is_err() {
                    refused.insert(lane, item.generation);
                }
                self.answering.subscribe().wait_for(|answering| *answering).await.unwrap();
                if answers.send(vec![AppendAnswer { id: item.id, result }]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[async_trait]
impl BrokerService for FakeBroker {
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        let (items, received) = mpsc::channel(4);
        let (sender, answers) = mpsc::channel(4);
        let mut breaks = self.breaks.subscribe();
        let this = Arc::new(Self {
            node: self.node,
            logs: Arc::clone(&self.logs),
            taking: self.taking.clone(),
            received: self.received.clone(),
            answering: self.answering.clone(),
            breaks: self.breaks.clone(),
            reads: AtomicU64::new(0),
        });
        tokio::spawn(async move {
            tokio::select! {
                () = this.take_items(received, sender) => {}
                _ = breaks.changed() => {}
            }
        });
        Ok(AppendStream { items, answers: ReceiverStream::new(answers).boxed() })
    }

    async fn read(&self, request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.as_owner(request.partition, Some(request.epoch), |log| {
            if request.offset < log.start || request.offset > log.high_watermark {
                return Err(ServiceError::not_applied(ErrorCode::OutOfRange, "outside"));
            }
            if request.offset < log.retained_from {
                return Err(ServiceError::not_applied(ErrorCode::Unavailable, "not held, rolling"));
            }
            let (_, batches) = log.visible(request.offset, request.max_bytes as usize);
            Ok(OwnerBatches { bounds: log.bounds(), batches })
        })
    }

    async fn bounds(&self, partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        self.as_owner(partition, None, |log| Ok(log.bounds()))
    }

    async fn follow(&self, partition: TopicPartition, epoch: Epoch, from: Offset) -> Result<TailStream, ServiceError> {
        self.as_owner(partition, Some(epoch), |_| Ok(()))?;
        let (logs, node) = (Arc::clone(&self.logs), self.node);
        let changed = logs.changed.subscribe();
        let events = stream::unfold((from, changed, true), move |(position, mut changed, first)| {
            let logs = Arc::clone(&logs);
            async move {
                loop {
                    changed.borrow_and_update();
                    let step = {
                        let mut logs = logs.logs.lock();
                        let log = logs.entry(partition).or_default();
                        if (log.owner, log.epoch) != (Some(node), epoch) {
                            let error = ServiceError::not_applied(ErrorCode::NotOwner, "moved");
                            return Some((Err(error), (position, changed, false)));
                        }
                        let (next_offset, batches) = log.visible(position, 1 << 20);
                        TailEvent { bounds: log.bounds(), base_offset: position, next_offset, batches }
                    };
                    if first || step.next_offset > position {
                        let next = step.next_offset;
                        return Some((Ok(step), (next, changed, false)));
                    }
                    changed.changed().await.ok()?;
                }
            }
        });
        Ok(events.boxed())
    }

    async fn delete_records(
        &self,
        partition: TopicPartition,
        epoch: Epoch,
        before: Offset,
    ) -> Result<Offset, ServiceError> {
        self.as_owner(partition, Some(epoch), |log| {
            if before > log.high_watermark {
                return Err(ServiceError::not_applied(ErrorCode::OutOfRange, "above the high watermark"));
            }
            log.start = log.start.max(before);
            Ok(log.start)
        })
    }

    async fn offset_for_time(
        &self,
        _partition: TopicPartition,
        _epoch: Epoch,
        _search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        Ok(None)
    }

    async fn producers(&self, partition: TopicPartition, epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        self.as_owner(partition, Some(epoch), |log| {
            let batches = log.batches.iter().filter_map(|(header, _)| Some((header.producer()?, header)));
            let active = |(key, header): (record_batch::ProducerKey, &BatchHeader)| ActiveProducer {
                key,
                last_sequence: header.last_sequence(),
                last_timestamp_ms: header.max_timestamp(),
            };
            Ok(batches.map(active).collect())
        })
    }

    async fn delete_topic_data(&self, _topic: TopicId) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// Finds fake brokers by their node ids.
#[derive(Default)]
pub struct FakeConnector {
    pub brokers: Mutex<HashMap<NodeId, Arc<FakeBroker>>>,
}

impl BrokerConnector for FakeConnector {
    fn connect(&self, broker: &SessionRecord) -> Arc<dyn BrokerService> {
        self.brokers.lock().get(&broker.node).cloned().expect("only brokers that the test made have sessions")
    }
}
