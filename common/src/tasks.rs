//! Supervision of tasks: each has a name, none is detached, and a panic in one stops the process
//! in order instead of leaving it half alive.
//!
//! Invariant: a task is listed in `running` from before its first poll until it has been dropped.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::shutdown::Shutdown;

/// How long aborted tasks get to drop what they own.
const ABORT_GRACE: Duration = Duration::from_millis(500);

/// A set of supervised tasks. Clones share the set; dropping the last clone aborts what still runs.
#[derive(Clone, Debug)]
#[must_use = "tasks are aborted when their supervisor is dropped"]
pub struct Tasks {
    set: Arc<TaskSet>,
}

#[derive(Debug)]
struct TaskSet {
    shutdown: Shutdown,
    tracker: TaskTracker,
    running: Arc<Running>,
}

impl Drop for TaskSet {
    fn drop(&mut self) {
        self.running.abort_all();
    }
}

impl Tasks {
    /// `shutdown` begins when a task panics.
    pub fn new(shutdown: Shutdown) -> Self {
        let set = TaskSet { shutdown, tracker: TaskTracker::new(), running: Arc::default() };
        Tasks { set: Arc::new(set) }
    }

    /// The shutdown that this set's tasks follow.
    pub fn shutdown(&self) -> &Shutdown {
        &self.set.shutdown
    }

    /// Starts a task; must be called within a Tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let entry = Running::enter(&self.set.running, name);
        let id = entry.id;
        let shutdown = self.set.shutdown.clone();
        // No lock is held here: a runtime that is stopping drops the task, and its entry, at once.
        let task = self.set.tracker.spawn(async move {
            let _entry = entry;
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                error!(task = name, panic = panic_text(&*panic), "task panicked, shutting down");
                shutdown.begin();
            }
        });
        self.set.running.set_handle(id, task.abort_handle());
    }

    /// Names of the tasks that run now, in the order in which they were started.
    pub fn running(&self) -> Vec<&'static str> {
        self.set.running.names()
    }

    /// Waits until all tasks have ended. At the deadline, aborts those that have not and returns
    /// their names. Does not begin the shutdown: that is the caller's decision.
    pub async fn join(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.set.tracker.close();
        if tokio::time::timeout(deadline, self.set.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        let stragglers = self.set.running.abort_all();
        if stragglers.is_empty() {
            return Ok(());
        }
        // Best effort: a task that blocks its thread cannot be aborted, and is reported all the same.
        let _ = tokio::time::timeout(ABORT_GRACE, self.set.tracker.wait()).await;
        Err(stragglers)
    }
}

#[derive(Debug, Default)]
struct Running {
    table: Mutex<RunningTable>,
}

#[derive(Debug, Default)]
struct RunningTable {
    next_id: u64,
    tasks: BTreeMap<u64, RunningTask>,
}

#[derive(Clone, Debug)]
struct RunningTask {
    name: &'static str,
    /// None for the moment between listing the task and starting it.
    handle: Option<AbortHandle>,
}

impl Running {
    fn enter(running: &Arc<Running>, name: &'static str) -> RunningEntry {
        let mut table = running.table.lock();
        let id = table.next_id;
        table.next_id += 1;
        table.tasks.insert(id, RunningTask { name, handle: None });
        RunningEntry { running: Arc::clone(running), id }
    }

    /// Does nothing for a task that has ended already.
    fn set_handle(&self, id: u64, handle: AbortHandle) {
        if let Some(task) = self.table.lock().tasks.get_mut(&id) {
            task.handle = Some(handle);
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.table.lock().tasks.values().map(|task| task.name).collect()
    }

    fn abort_all(&self) -> Vec<&'static str> {
        // Aborting may drop a task here and now, which takes the lock again: hence the copy.
        let tasks: Vec<RunningTask> = self.table.lock().tasks.values().cloned().collect();
        tasks.iter().filter_map(|task| task.handle.as_ref()).for_each(AbortHandle::abort);
        tasks.iter().map(|task| task.name).collect()
    }
}

/// Takes the task off the list when the task is dropped, however it ends.
struct RunningEntry {
    running: Arc<Running>,
    id: u64,
}

impl Drop for RunningEntry {
    fn drop(&mut self) {
        self.running.table.lock().tasks.remove(&self.id);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return text;
    }
    panic.downcast_ref::<String>().map_or("(no text)", String::as_str)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn join_waits_for_all() {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        let seen = shutdown.clone();
        tasks.spawn("follower", async move { seen.begun().await });
        assert_eq!(tasks.running(), ["follower"]);
        shutdown.begin();
        assert_eq!(tasks.join(LONG).await, Ok(()));
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn a_panic_begins_the_shutdown() {
        let shutdown = Shutdown::new();
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn("faulty", async { panic!("on purpose, in a test") });
        shutdown.begun().await;
        assert_eq!(tasks.join(LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn stragglers_are_named_and_aborted() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("quick", async {});
        tasks.spawn("stuck", pending());
        assert_eq!(tasks.join(SOON).await, Err(vec!["stuck"]));
        assert!(tasks.running().is_empty());
    }

    #[tokio::test]
    async fn dropping_the_supervisor_aborts() {
        let tasks = Tasks::new(Shutdown::new());
        let (guard, dropped) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("owner", async move {
            let _guard = guard;
            pending().await
        });
        drop(tasks);
        assert!(dropped.await.is_err());
    }

    #[test]
    fn a_runtime_that_has_stopped_takes_no_task() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("late", pending());
        assert!(tasks.running().is_empty());
    }
}
