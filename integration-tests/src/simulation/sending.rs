//! Messages between clients and brokers.

use bmq_partition::AppendReply;

use super::client::Stream;
use super::env::{MS, SECOND};
use super::happening::Happening;
use super::world::World;

impl World {
    /// A client's turn: it makes a batch, while there is time for that, and sends what it may.
    pub fn produce(&mut self, lane: usize) {
        if !self.env.healing {
            self.lanes[lane].make(lane, &mut self.batches, &mut self.env);
        }
        self.send(lane);
        let pace = self.lanes[lane].pace;
        let wait = self.env.dice.between(pace / 2, pace * 3 / 2);
        self.env.after(wait, Happening::Produce { lane });
    }

    fn send(&mut self, lane: usize) {
        let this = &self.lanes[lane];
        let Some((epoch, node)) = this.route else { return };
        if this.pending.is_empty() {
            return;
        }
        if epoch != this.used_epoch() && !this.may_change_route() {
            return;
        }
        let Some(stream) = self.stream_to(lane, node) else { return };
        let items = self.lanes[lane].next_items(lane, epoch, &mut self.batches, &mut self.env);
        if items.is_empty() {
            return;
        }
        for item in &items {
            let attempt = self.lanes[lane].attempt(item.batch).expect("what is sent is in flight");
            let patience = self.env.dice.between(3 * SECOND, 20 * SECOND);
            let deadline = Happening::ClientDeadline { lane, stream: stream.id, batch: item.batch, attempt };
            self.env.after(patience, deadline);
        }
        let arrival = (self.env.now + self.message_time()).max(stream.last_arrival + 1);
        if let Some(stream) = &mut self.lanes[lane].stream {
            stream.last_arrival = arrival;
        }
        let Stream { id, node, incarnation, .. } = stream;
        self.env.at(arrival, Happening::Arrive { lane, stream: id, node, incarnation, items });
    }

    /// How long a message between client and broker takes.
    pub fn message_time(&mut self) -> u64 {
        if self.env.strikes(|faults| faults.message_slow, "fault: message slow") {
            return self.env.dice.between(10 * MS, 800 * MS);
        }
        self.env.hop()
    }

    /// The lane's stream to this node; a new one if it has none there. `None` if the node cannot be reached.
    fn stream_to(&mut self, lane: usize, node: usize) -> Option<Stream> {
        let incarnation = self.nodes[node].incarnation;
        let current = self.lanes[lane].stream;
        if let Some(stream) = current.filter(|stream| stream.node == node) {
            return Some(stream);
        }
        if !self.lanes[lane].may_change_route() || !self.nodes[node].up {
            return None;
        }
        if let Some(old) = current {
            self.end_stream_at_broker(old);
        }
        self.next_stream += 1;
        let stream = Stream { id: self.next_stream, node, incarnation, last_arrival: self.env.now };
        self.lanes[lane].stream = Some(stream);
        Some(stream)
    }

    fn end_stream_at_broker(&mut self, stream: Stream) {
        let at = stream.last_arrival.max(self.env.now) + self.env.hop();
        let Stream { id, node, incarnation, .. } = stream;
        self.env.at(at, Happening::StreamGone { stream: id, node, incarnation });
    }

    pub fn take_answer(&mut self, lane: usize, stream: u64, batch: usize, reply: &AppendReply) {
        if self.lanes[lane].stream.is_none_or(|current| current.id != stream) {
            return;
        }
        let known = self.checker.partitions[self.lanes[lane].partition].knows_producers();
        if !known && reply.is_err() {
            // The producers' state went with a segment that is not read: whatever they are told is right.
            self.lanes[lane].excuse();
        }
        self.lanes[lane].take_answer(batch, reply, &self.batches, &mut self.env);
        if reply.is_ok() {
            self.send(lane);
        }
    }

    pub fn lose_stream(&mut self, lane: usize, stream: u64) {
        let Some(current) = self.lanes[lane].stream.filter(|current| current.id == stream) else { return };
        self.end_stream_at_broker(current);
        self.lanes[lane].lose_stream();
    }

    /// A batch was not answered in time: the client gives its connection up.
    pub fn client_deadline(&mut self, lane: usize, stream: u64, batch: usize, attempt: u32) {
        let current = self.lanes[lane].stream.is_some_and(|current| current.id == stream);
        if current && self.lanes[lane].attempt(batch) == Some(attempt) {
            self.env.coverage.hit("fault: stream lost");
            self.lose_stream(lane, stream);
        }
    }

    /// Cuts the connection of some lane.
    pub fn cut_stream(&mut self) {
        let lane = self.env.dice.below(self.lanes.len() as u64) as usize;
        if let Some(stream) = self.lanes[lane].stream {
            let notice = self.env.dice.between(MS, 50 * MS);
            self.env.after(notice, Happening::StreamLost { lane, stream: stream.id });
        }
    }
}
