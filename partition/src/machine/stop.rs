//! The end of a claim: given up in good order, or lost.

use std::time::Duration;

use bmq_proto::meta::PartitionCommandKind;
use bmq_proto::{ErrorCode, ServiceError};

use super::serve::{ReleaseLimits, Serving};
use super::{Action, Machine, Now, Phase, StopReason};

impl Serving {
    /// Tells everybody who waits that nobody knows.
    fn give_up_pending(&mut self, out: &mut Vec<Action>) {
        let error = ServiceError::unknown(ErrorCode::NotOwner, "the partition's owner changed before this was durable");
        for batch in self.pending.drain() {
            for waiting in batch.waiting {
                out.push(Action::Reply { token: waiting.token, reply: Err(error.clone()) });
            }
        }
        self.moving.give_up(out);
    }
}

impl Machine {
    /// Stops taking batches; what is outstanding drains, the open file is sealed, then the partition is released.
    pub(super) fn begin_release(&mut self, close_wait: Duration, now: Now) {
        self.release = Some(close_wait);
        match &mut self.phase {
            Phase::Serving(serving) => {
                let drain = now.monotonic + self.setup.config.release_wait.0;
                let close = now.monotonic + close_wait;
                let end = drain.max(close) + self.setup.config.release_wait.0;
                serving.release_until.get_or_insert(ReleaseLimits { drain, close, end, next: drain });
            }
            Phase::Stopped => {}
            // Nothing was promised under this claim yet: whoever comes next recovers.
            _ => self.stop(StopReason::Released),
        }
    }

    pub(super) fn continue_release(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        let Some(limits) = serving.release_until.as_mut() else { return };
        let ahead = [limits.drain, limits.close, limits.end].into_iter().filter(|at| *at > now.monotonic);
        limits.next = ahead.min().unwrap_or(limits.end);
        let limits = *limits;
        if now.monotonic >= limits.end {
            // The metadata service or the store does not answer: the next owner recovers.
            return self.stop(StopReason::Released);
        }
        if !serving.pending.is_empty() {
            if now.monotonic < limits.drain {
                return;
            }
            serving.give_up_pending(&mut self.out);
        }
        self.seal_open_file();
        let Phase::Serving(serving) = &mut self.phase else { return };
        let closed = serving.closings.is_empty() || now.monotonic >= limits.close;
        if serving.open.is_none() && serving.roll.is_none() && closed && self.commands.is_empty() {
            self.commands.submit(PartitionCommandKind::Release { epoch: serving.epoch });
        }
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        if let Phase::Serving(serving) = &mut self.phase {
            serving.give_up_pending(&mut self.out);
        }
        self.commands.clear();
        self.delayed.clear();
        self.phase = Phase::Stopped;
        self.out.push(Action::Stopped(reason));
    }
}
