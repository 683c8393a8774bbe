//! Credit: how much one side of a stream may send before the other says more.

use bmq_proto::{ErrorCode, ServiceError, v1};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// What a producing client may have unanswered.
///
/// Invariant: `held + handed_back ≤ window`, the rest being what is unanswered.
pub struct ProduceCredit {
    window: Amount,
    state: Mutex<ProduceState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    bytes: u64,
    batches: u64,
}

struct ProduceState {
    /// What the client may still send.
    held: Amount,
    /// Answered, and not yet told to the client.
    handed_back: Amount,
}

impl ProduceCredit {
    pub fn new(bytes: u64, batches: u64) -> Self {
        let window = Amount { bytes, batches };
        let handed_back = Amount { bytes: 0, batches: 0 };
        Self { window, state: Mutex::new(ProduceState { held: window, handed_back }) }
    }

    /// What the client is told when the stream opens.
    pub fn initial(&self) -> v1::Credit {
        v1::Credit { bytes: self.window.bytes, batches: self.window.batches }
    }

    /// A batch came in.
    pub fn take(&self, bytes: u64) -> Result<(), ServiceError> {
        let mut state = self.state.lock();
        let left = state.held.bytes.checked_sub(bytes).zip(state.held.batches.checked_sub(1));
        let Some((bytes, batches)) = left else {
            let text = "more batches were sent than the credit given allows";
            return Err(ServiceError::not_applied(ErrorCode::InvalidArgument, text));
        };
        state.held = Amount { bytes, batches };
        Ok(())
    }

    /// A batch was answered. Returns what to tell the client, once that is worth a message.
    pub fn hand_back(&self, bytes: u64) -> Option<v1::Credit> {
        let mut state = self.state.lock();
        let back = &mut state.handed_back;
        back.bytes += bytes;
        back.batches += 1;
        if back.bytes < self.window.bytes / 8 && back.batches < self.window.batches / 8 {
            return None;
        }
        let Amount { bytes, batches } = std::mem::replace(back, Amount { bytes: 0, batches: 0 });
        state.held.bytes += bytes;
        state.held.batches += batches;
        Some(v1::Credit { bytes, batches })
    }
}

/// What may be sent to a fetching client.
///
/// A batch larger than the credit left is sent all the same, since it could never be otherwise; what it takes too much
/// is kept back from the credit that follows.
pub struct FetchCredit {
    bytes: Semaphore,
    limit: usize,
    debt: Mutex<usize>,
}

impl FetchCredit {
    /// No more than `limit` is ever held, whatever the client says.
    pub fn new(bytes: u64, limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(limit);
        Self { bytes: Semaphore::new(bytes), limit, debt: Mutex::new(0) }
    }

    /// The client has consumed that much.
    pub fn add(&self, bytes: u64) {
        let mut debt = self.debt.lock();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let repaid = bytes.min(*debt);
        *debt -= repaid;
        let room = self.limit.saturating_sub(self.bytes.available_permits());
        self.bytes.add_permits((bytes - repaid).min(room));
    }

    /// Waits for credit and takes up to `max` bytes of it, in turn with the others who wait.
    pub async fn take(&self, max: usize) -> Grant<'_> {
        self.bytes.acquire().await.expect("the semaphore is never closed").forget();
        let more = self.bytes.forget_permits(max.saturating_sub(1));
        Grant { credit: self, bytes: 1 + more }
    }
}

/// Credit taken; what is not used when it is dropped goes back.
pub struct Grant<'a> {
    credit: &'a FetchCredit,
    bytes: usize,
}

impl Grant<'_> {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// That much is being sent.
    pub fn spend(mut self, bytes: usize) {
        *self.credit.debt.lock() += bytes.saturating_sub(self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.credit.bytes.add_permits(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_producer_gets_back_what_was_answered() {
        let credit = ProduceCredit::new(80, 8);
        for _ in 0..8 {
            credit.take(10).unwrap();
        }
        assert_eq!(credit.take(1).unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(credit.hand_back(10), Some(v1::Credit { bytes: 10, batches: 1 }));
        credit.take(9).unwrap();
        assert!(credit.take(2).is_err());
    }

    #[test]
    fn a_fetching_client_is_sent_no_more_than_it_said() {
        let credit = FetchCredit::new(10, 100);
        let grant = credit.take(6).now_or_never().unwrap();
        assert_eq!(grant.bytes(), 6);
        grant.spend(2);
        let grant = credit.take(100).now_or_never().unwrap();
        assert_eq!(grant.bytes(), 8);
        grant.spend(20);
        assert!(credit.take(1).now_or_never().is_none());
        credit.add(12);
        assert!(credit.take(1).now_or_never().is_none());
        credit.add(5);
        assert_eq!(credit.take(100).now_or_never().unwrap().bytes(), 5);
        credit.add(1_000);
        assert_eq!(credit.take(1_000).now_or_never().unwrap().bytes(), 100);
    }
}
