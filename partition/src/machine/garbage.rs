//! Files that no record names any more: deleted once no read can be using them, then forgotten.
//!
//! A file is forgotten only after its deletion succeeded, so none is lost sight of.

use std::time::Duration;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{GarbageRecord, PartitionCommandKind};
use bmq_proto::{FileId, ServiceError};

use super::timer::STORE_RETRY;
use super::{Action, Machine, Now, Phase};

/// How long a dropped file is kept: longer than any read may take.
const DELAY: Duration = Duration::from_secs(60);

/// The garbage of one partition.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    waiting: Vec<(Monotonic, FileId)>,
    deleting: Vec<FileId>,
}

impl Garbage {
    pub fn add(&mut self, file: FileId, now: Now) {
        let known = self.deleting.contains(&file) || self.waiting.iter().any(|(_, waiting)| *waiting == file);
        if !known {
            self.waiting.push((now.monotonic + DELAY, file));
        }
    }

    pub fn next_deadline(&self) -> Option<Monotonic> {
        self.waiting.iter().map(|(at, _)| *at).min()
    }

    /// Takes the files whose time has come; they count as being deleted.
    fn take_due(&mut self, now: Now) -> Vec<FileId> {
        let (due, waiting) = self.waiting.drain(..).partition(|(at, _)| *at <= now.monotonic);
        self.waiting = waiting;
        let due: Vec<(Monotonic, FileId)> = due;
        let due: Vec<FileId> = due.into_iter().map(|(_, file)| file).collect();
        self.deleting.extend(&due);
        due
    }

    /// Whether the file was garbage that was being deleted; it no longer is.
    fn end_deletion(&mut self, file: FileId) -> bool {
        let before = self.deleting.len();
        self.deleting.retain(|deleting| *deleting != file);
        self.deleting.len() < before
    }
}

impl Machine {
    /// Older owners may have left garbage whose time had not come.
    pub(super) fn finish_garbage_listing(&mut self, result: Result<Vec<GarbageRecord>, ServiceError>, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        match result {
            Ok(found) => found.into_iter().for_each(|record| serving.garbage.add(record.file, now)),
            Err(_) => self.later(STORE_RETRY * 10, Action::ListGarbage, now),
        }
    }

    pub(super) fn delete_garbage_if_due(&mut self, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        self.out.extend(serving.garbage.take_due(now).into_iter().map(Action::Discard));
    }

    pub(super) fn finish_discard(&mut self, file: FileId, deleted: bool, now: Now) {
        let Phase::Serving(serving) = &mut self.phase else { return };
        if !serving.garbage.end_deletion(file) {
            return;
        }
        if deleted {
            self.commands.submit(PartitionCommandKind::ForgetGarbage { epoch: serving.epoch, file });
        } else {
            serving.garbage.add(file, now);
        }
    }
}
