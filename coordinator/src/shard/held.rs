//! Answers that wait until they may leave. Pure.
//!
//! An answer leaves when the entries that were taken before it are stored, and a read of the partition's head that
//! began after it was made shows the shard's epoch. One read serves every answer made before it began. Both conditions
//! only grow, so answers leave in the order in which they were made.

use std::collections::VecDeque;

use crate::shard::{ReplyToken, Response};

#[derive(Debug, Default)]
pub struct HeldReplies {
    waiting: VecDeque<HeldReply>,
    bytes: usize,
    reads_begun: u64,
    reads_done: u64,
}

#[derive(Debug)]
struct HeldReply {
    token: ReplyToken,
    response: Response,
    /// The last entry that it may show.
    entry: u64,
    /// The first read that may release it.
    read: u64,
}

impl HeldReplies {
    /// Holds an answer made after `entry` was taken.
    pub fn hold(&mut self, token: ReplyToken, response: Response, entry: u64) {
        self.bytes += response.encoded_len();
        self.waiting.push_back(HeldReply { token, response, entry, read: self.reads_begun + 1 });
    }

    /// Begins a read if an answer waits for one and none is on its way.
    pub fn begin_read(&mut self) -> bool {
        let is_idle = self.reads_begun == self.reads_done;
        let begin = is_idle && self.waiting.back().is_some_and(|last| last.read > self.reads_begun);
        self.reads_begun += u64::from(begin);
        begin
    }

    /// The read on its way has shown the shard's epoch.
    pub fn finish_read(&mut self) {
        self.reads_done = self.reads_begun;
    }

    /// The read on its way has failed: the answers that waited for it will not leave, and are named.
    pub fn fail_read(&mut self) -> Vec<ReplyToken> {
        let failed = self.waiting.partition_point(|held| held.read <= self.reads_begun);
        self.reads_done = self.reads_begun;
        let failed = self.waiting.drain(..failed);
        let forget = |held: HeldReply| {
            self.bytes -= held.response.encoded_len();
            held.token
        };
        failed.map(forget).collect()
    }

    /// How many answers wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What they have on the wire, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next answer that may leave, when the entries up to `stored` are stored.
    pub fn release(&mut self, stored: u64) -> Option<(ReplyToken, Response)> {
        let first = self.waiting.front()?;
        if first.entry > stored || first.read > self.reads_done {
            return None;
        }
        let HeldReply { token, response, .. } = self.waiting.pop_front()?;
        self.bytes -= response.encoded_len();
        Some((token, response))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::coordinator::GroupErrorResponse;

    fn response(error: i32) -> Response {
        Response::GroupHeartbeat(GroupErrorResponse { error })
    }

    fn released(held: &mut HeldReplies, stored: u64) -> Vec<u64> {
        std::iter::from_fn(|| held.release(stored)).map(|(token, _)| token.0).collect()
    }

    #[test]
    fn an_answer_needs_a_read_that_began_after_it_and_what_it_shows_stored() {
        let mut held = HeldReplies::default();
        assert!(!held.begin_read(), "nobody waits");
        held.hold(ReplyToken(1), response(0), 0);
        held.hold(ReplyToken(2), response(0), 1);
        assert!(held.begin_read());
        held.hold(ReplyToken(3), response(0), 1);
        assert!(!held.begin_read(), "one at a time");
        assert!(held.release(9).is_none(), "the read has not ended");
        held.finish_read();
        assert_eq!(released(&mut held, 0), [1]);
        assert_eq!(released(&mut held, 1), [2], "the third came after the read had begun");
        assert!(held.begin_read());
        held.finish_read();
        assert_eq!(released(&mut held, 1), [3]);
        assert!(!held.begin_read());
    }

    #[test]
    fn a_failed_read_fails_those_who_waited_for_it() {
        let mut held = HeldReplies::default();
        held.hold(ReplyToken(1), response(0), 0);
        assert!(held.begin_read());
        held.hold(ReplyToken(2), response(0), 0);
        assert_eq!(held.fail_read(), [ReplyToken(1)]);
        assert!(held.release(1).is_none());
        assert!(held.begin_read());
        held.finish_read();
        assert_eq!(released(&mut held, 1), [2]);
    }
}
