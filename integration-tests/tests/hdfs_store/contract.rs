//! The contract that every store is held to.

use std::sync::Arc;
use std::time::Duration;

use bmq_storage::{SegmentStore, conformance};

use crate::support::Bench;

/// Races between a writer and a fencer; each costs a block recovery.
const RACES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hdfs_store_keeps_the_contract() {
    let Bench { cluster: _held, store, .. } = Bench::new("/contract").await;
    let store = Arc::new(store);
    conformance::run_all(|| std::future::ready(Arc::clone(&store) as Arc<dyn SegmentStore>), RACES).await;
    assert!(store.settle(Duration::from_secs(30)).await, "no file is left open");
}
