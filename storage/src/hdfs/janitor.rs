//! Cleans up after files that nobody writes any more: broken and abandoned writers, creations that were given up.
//!
//! As long as its client lives an abandoned file keeps its lease, and its pipeline keeps sockets and tasks. Lease
//! recovery by another client ends all of it (the sockets at the pipeline's next heartbeat, within half a minute).
//!
//! Invariants:
//! * a file is an [`OpenFile`] from before the NameNode is asked to create it; when that value goes, whatever the reason,
//!   the file is closed or in the queue;
//! * `outstanding` counts the open files and the chores queued and running.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::{Backoff, Random, Tasks};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::clients::Clients;
use super::counters::HdfsCounters;
use super::failure::guarded;

/// Files waiting to be cleaned; more are left to the NameNode.
const QUEUE_LIMIT: usize = 4096;
/// Files being cleaned at once.
const AT_ONCE: usize = 16;
/// Tries per file. With the back-off below, some eight minutes.
const ATTEMPTS: u32 = 200;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A file given up during creation may appear late: so often it must be missing to be held for gone.
const MISSING_TO_BE_GONE: u32 = 3;

/// One file to clean.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chore {
    path: String,
    delete: bool,
}

/// A file that this store may hold open. Dropped, it goes to the janitor, unless it is known to be closed.
pub(super) struct OpenFile {
    janitor: Janitor,
    path: String,
    fate: Fate,
}

/// What is done with a file that nobody writes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Nobody was told of it.
    Delete,
    /// Somebody may have durable bytes in it.
    Recover,
    /// It is closed, or was never created.
    Leave,
}

impl OpenFile {
    /// From now on the file is somebody's: it is not deleted any more.
    pub(super) fn keep(&mut self) {
        self.fate = Fate::Recover;
    }

    /// There is nothing to clean.
    pub(super) fn leave(&mut self) {
        self.fate = Fate::Leave;
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        match self.fate {
            Fate::Leave => self.janitor.one_less(),
            Fate::Delete => self.janitor.enqueue(Chore { path, delete: true }),
            Fate::Recover => self.janitor.enqueue(Chore { path, delete: false }),
        }
    }
}

/// The way to the janitor; clones reach the same one. It ends with the last of them.
#[derive(Clone)]
pub(super) struct Janitor {
    queue: mpsc::Sender<Chore>,
    outstanding: Arc<watch::Sender<usize>>,
    counters: Arc<HdfsCounters>,
}

impl Janitor {
    pub(super) fn start(tasks: &Tasks, clients: Arc<Clients>, counters: Arc<HdfsCounters>, deadline: Duration) -> Self {
        let (queue, chores) = mpsc::channel(QUEUE_LIMIT);
        let outstanding = Arc::new(watch::Sender::new(0));
        let broom = Broom { clients, counters: Arc::clone(&counters), deadline, random: Random::from_os() };
        tasks.spawn("hdfs-janitor", run(chores, Arc::new(broom), Arc::clone(&outstanding)));
        Self { queue, outstanding, counters }
    }

    /// A file about to be created, of which nobody knows yet.
    pub(super) fn open_file(&self, path: String) -> OpenFile {
        self.outstanding.send_modify(|count| *count += 1);
        OpenFile { janitor: self.clone(), path, fate: Fate::Delete }
    }

    /// Has a file that nobody knows of closed and deleted.
    pub(super) fn discard(&self, path: String) {
        drop(self.open_file(path));
    }

    /// Returns when no file is open and nothing is left to clean.
    pub(super) async fn idle(&self) {
        let mut outstanding = self.outstanding.subscribe();
        let idle = outstanding.wait_for(|count| *count == 0).await;
        idle.expect("the sender lives in this janitor");
    }

    /// Takes in a chore that is counted already.
    fn enqueue(&self, chore: Chore) {
        if let Err(refused) = self.queue.try_send(chore) {
            self.one_less();
            self.counters.given_up.increment();
            let chore = refused.into_inner();
            warn!(file = chore.path, "too many files wait for lease recovery, leaving it to the NameNode");
        }
    }

    fn one_less(&self) {
        self.outstanding.send_modify(|count| *count -= 1);
    }
}

async fn run(mut chores: mpsc::Receiver<Chore>, broom: Arc<Broom>, outstanding: Arc<watch::Sender<usize>>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            chore = chores.recv(), if running.len() < AT_ONCE => {
                let Some(chore) = chore else { break };
                let broom = Arc::clone(&broom);
                running.spawn(async move { broom.clean(chore).await });
            }
            Some(_) = running.join_next() => outstanding.send_modify(|count| *count -= 1),
        }
    }
}

struct Broom {
    clients: Arc<Clients>,
    counters: Arc<HdfsCounters>,
    deadline: Duration,
    random: Random,
}

/// What one try found.
enum Found {
    Done,
    Missing,
    NotYet,
}

impl Broom {
    async fn clean(&self, chore: Chore) {
        let mut pause = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut missing = 0;
        for _ in 0..ATTEMPTS {
            match self.try_once(&chore).await {
                Found::Done => return self.counters.recovered.increment(),
                Found::Missing => missing += 1,
                Found::NotYet => {}
            }
            if missing == MISSING_TO_BE_GONE || (missing > 0 && !chore.delete) {
                return self.counters.recovered.increment();
            }
            tokio::time::sleep(pause.next(&self.random)).await;
        }
        self.counters.given_up.increment();
        warn!(file = chore.path, attempts = ATTEMPTS, "file does not close, leaving it to the NameNode");
    }

    async fn try_once(&self, chore: &Chore) -> Found {
        let (client, path) = (self.clients.fencing.clone(), chore.path.clone());
        match guarded(self.deadline, async move { client.recover_lease(&path).await }).await {
            Ok(true) => {}
            Ok(false) => return Found::NotYet,
            Err(failure) if failure.is_not_found() => return Found::Missing,
            Err(failure) => {
                debug!(file = chore.path, ?failure, "lease recovery failed, trying again");
                return Found::NotYet;
            }
        }
        if !chore.delete {
            return Found::Done;
        }
        let (client, path) = (self.clients.reading.clone(), chore.path.clone());
        match guarded(self.deadline, async move { client.delete(&path, false).await }).await {
            Ok(_) => Found::Done,
            Err(failure) => {
                debug!(file = chore.path, ?failure, "deleting failed, trying again");
                Found::NotYet
            }
        }
    }
}
