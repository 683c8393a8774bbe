//! The batches of one partition, in order, from their first record to their answer.
//!
//! ```text
//!   front                                             back
//!   | in flight … (at most 5) | waiting …      | open |
//!   └ sent, not answered      └ closed, to be  └ takes records
//!                               sent (again)
//! ```
//!
//! Invariants:
//! * batches are sent in order, and answered batches leave; so the batches in flight are the front of the queue, except
//!   after a refusal: then nothing is sent until all that were in flight are answered (`draining`);
//! * of an idempotent producer each batch keeps its sequence over all tries, and a batch that may have been applied is
//!   never given another one;
//! * a batch that may have been applied is sent again alone: so it is still among the last few that the server
//!   recognises, however often it is in doubt;
//! * after a batch with a sequence has failed for good (`broken`), the batches behind it go on under the next producer
//!   epoch, from sequence 0, once nothing is in flight.

use std::collections::VecDeque;
use std::time::Duration;

use bmq_common::{Backoff, Random};
use bmq_proto::ErrorCode;
use bmq_proto::record_batch::{Codec, ProducerKey, add_to_sequence};
use bytes::Bytes;
use tokio::time::Instant;

use super::batch::{Batch, Taken};
use crate::Error;

/// Batches in flight at once of an idempotent producer: as many as the server remembers to recognise duplicates.
const MAX_IN_FLIGHT: usize = 5;

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// What every queue of a producer keeps to.
pub(super) struct Rules {
    pub linger: Duration,
    pub delivery_timeout: Duration,
    pub batch_bytes: usize,
    pub codec: Codec,
    pub idempotent: bool,
}

impl Rules {
    /// Without sequences only one batch at a time is sure not to be overtaken when it must be sent again.
    fn max_in_flight(&self) -> usize {
        if self.idempotent { MAX_IN_FLIGHT } else { 1 }
    }
}

/// One partition's batches.
pub(super) struct Queue {
    partition: u32,
    batches: VecDeque<Batch>,
    in_flight: usize,
    /// A batch was refused, and later ones are still to be answered.
    draining: bool,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// This partition's epoch and next sequence under the producer's id; both grow only.
    epoch: Option<i16>,
    next_sequence: i32,
    broken: bool,
}

/// The numbers of batches that are no longer waited for.
pub(super) type Resolved = Vec<u64>;

impl Queue {
    pub fn new(partition: u32) -> Self {
        Self {
            partition,
            batches: VecDeque::new(),
            in_flight: 0,
            draining: false,
            retry_at: None,
            backoff: Backoff::new(FIRST_RETRY, LAST_RETRY),
            epoch: None,
            next_sequence: 0,
            broken: false,
        }
    }

    /// Whether the next record can join a batch that has begun.
    pub fn has_open_batch(&self) -> bool {
        self.batches.back().is_some_and(Batch::is_open)
    }

    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Adds a record; true if it begins a batch, then of the number given.
    pub fn add(&mut self, taken: Taken, number: u64, rules: &Rules, now: Instant) -> bool {
        let fits = |batch: &Batch| batch.is_open() && batch.has_room_for(&taken.record, rules.batch_bytes);
        if self.batches.back().is_some_and(fits) {
            let batch = self.batches.back_mut().expect("just looked at");
            if let Err((answer, error)) = batch.add(taken) {
                let _ = answer.send(Err(error.into()));
            }
            return false;
        }
        self.close_last();
        match Batch::begin(number, rules.codec, taken, now) {
            Ok(batch) => {
                self.batches.push_back(batch);
                true
            }
            Err((answer, error)) => {
                let _ = answer.send(Err(error.into()));
                false
            }
        }
    }

    /// Lets the last batch take no more records, and go without waiting.
    pub fn close_last(&mut self) {
        if let Some(batch) = self.batches.back_mut() {
            batch.close();
        }
    }

    /// When the next batch may be sent; `None` if something else must happen first.
    pub fn ready_at(&self, rules: &Rules) -> Option<Instant> {
        if self.draining || self.in_flight >= rules.max_in_flight() {
            return None;
        }
        let batch = self.batches.get(self.in_flight)?;
        if self.in_flight > 0 && (self.broken || batch.may_be_applied || self.batches[0].may_be_applied) {
            return None;
        }
        let due = if batch.is_open() { batch.begun_at + rules.linger } else { batch.begun_at };
        Some(due.max(self.retry_at.unwrap_or(due)))
    }

    /// Bytes of the next batch to be sent. Only while there is one.
    pub fn next_len(&self) -> usize {
        self.batches[self.in_flight].len()
    }

    /// When the oldest batch fails.
    pub fn expires_at(&self, rules: &Rules) -> Option<Instant> {
        self.batches.front().map(|batch| batch.begun_at + rules.delivery_timeout)
    }

    /// Takes the next batch for sending under the number `wire`; only when [`Queue::ready_at`] has come. `None` if it
    /// fails instead, because the producer's epochs are used up.
    pub fn send(&mut self, wire: u64, producer: Option<ProducerKey>, resolved: &mut Resolved) -> Option<Bytes> {
        if let Some(producer) = producer
            && !self.identify_next(producer)
        {
            let text = "the epochs of this producer are used up, open another one";
            self.fail_at(self.in_flight, &Error::not_applied(ErrorCode::ProducerFenced, text), resolved);
            return None;
        }
        let batch = &mut self.batches[self.in_flight];
        batch.sent_as = Some(wire);
        self.in_flight += 1;
        self.retry_at = None;
        Some(batch.build())
    }

    /// Sees to it that the next batch has an identity; false if there is none left.
    fn identify_next(&mut self, producer: ProducerKey) -> bool {
        let next = self.in_flight;
        if self.batches[next].may_be_applied {
            return true;
        }
        let epoch = self.epoch.get_or_insert(producer.epoch);
        if self.broken {
            let Some(higher) = epoch.checked_add(1) else { return false };
            *epoch = higher;
            self.next_sequence = 0;
            self.broken = false;
            // Their sequences count on a batch that never came.
            self.batches.iter_mut().filter(|batch| !batch.may_be_applied).for_each(|batch| batch.identity = None);
        }
        let batch = &mut self.batches[next];
        if batch.identity.is_none() {
            batch.identify(ProducerKey { id: producer.id, epoch: *epoch }, self.next_sequence);
            self.next_sequence = add_to_sequence(self.next_sequence, batch.record_count());
        }
        true
    }

    /// The batch sent under this number was written.
    pub fn succeed(&mut self, wire: u64, base_offset: u64, deduplicated: bool, resolved: &mut Resolved) {
        let Some((_, batch)) = self.take(wire) else { return };
        self.backoff.reset();
        resolved.push(batch.number);
        batch.succeed(self.partition, base_offset, deduplicated);
    }

    /// The batch sent under this number was not written, or nobody knows.
    pub fn refuse(
        &mut self,
        wire: u64,
        error: &Error,
        rules: &Rules,
        now: Instant,
        random: &Random,
        resolved: &mut Resolved,
    ) {
        let Some((index, mut batch)) = self.take(wire) else { return };
        self.draining = self.in_flight > 0;
        let gap = rules.idempotent && error.code == ErrorCode::OutOfOrderSequence;
        // A gap before the first batch stays; one behind a batch that comes again closes by itself.
        let lost_predecessor = gap && index == 0;
        let may_be_applied = batch.may_be_applied || error.may_have_been_applied;
        let again = if gap {
            !(lost_predecessor && may_be_applied)
        } else {
            error.retriable && (rules.idempotent || !may_be_applied)
        };
        self.broken |= lost_predecessor || (!again && batch.identity.is_some());
        if again {
            batch.may_be_applied = may_be_applied;
            self.batches.insert(index, batch);
            self.retry_at = Some(now + self.backoff.next(random));
        } else {
            resolved.push(batch.number);
            batch.fail(error);
        }
    }

    /// The stream broke: what was in flight on it is unknown.
    pub fn disconnect(&mut self, error: &Error, rules: &Rules, resolved: &mut Resolved) {
        self.draining = false;
        self.in_flight = 0;
        for batch in self.batches.iter_mut().filter(|batch| batch.sent_as.is_some()) {
            batch.sent_as = None;
            batch.may_be_applied = true;
        }
        if rules.idempotent {
            return;
        }
        while let Some(index) = self.batches.iter().position(|batch| batch.may_be_applied) {
            self.fail_at(index, error, resolved);
        }
    }

    /// Fails what has waited too long. `last_error` says what it waited for, if that is known.
    pub fn expire(&mut self, rules: &Rules, now: Instant, last_error: Option<&Error>, resolved: &mut Resolved) {
        while self.expires_at(rules).is_some_and(|at| at <= now) {
            let batch = &self.batches[0];
            let cause = last_error.map(|error| format!(", last: {}", error.message)).unwrap_or_default();
            let text = format!("no answer within the delivery timeout of {:?}{cause}", rules.delivery_timeout);
            let mut error = Error::not_applied(ErrorCode::Timeout, text);
            error.may_have_been_applied = batch.sent_as.is_some();
            self.broken |= batch.identity.is_some();
            if batch.sent_as.is_some() {
                self.in_flight -= 1;
                self.draining &= self.in_flight > 0;
            }
            self.fail_at(0, &error, resolved);
        }
    }

    /// Fails the next batch to be sent.
    pub fn fail_next(&mut self, error: &Error, resolved: &mut Resolved) {
        let batch = &self.batches[self.in_flight];
        self.broken |= batch.identity.is_some();
        self.fail_at(self.in_flight, error, resolved);
    }

    fn fail_at(&mut self, index: usize, error: &Error, resolved: &mut Resolved) {
        let batch = self.batches.remove(index).expect("the caller has looked at it");
        resolved.push(batch.number);
        batch.fail(error);
    }

    /// Takes out the batch in flight under the wire number, with its place; none if it has expired.
    fn take(&mut self, wire: u64) -> Option<(usize, Batch)> {
        let index = self.batches.iter().position(|batch| batch.sent_as == Some(wire))?;
        let mut batch = self.batches.remove(index).expect("just found");
        batch.sent_as = None;
        self.in_flight -= 1;
        self.draining &= self.in_flight > 0;
        Some((index, batch))
    }
}
