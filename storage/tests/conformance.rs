//! The conformance suite on the stores that need nothing but this machine. The suite on HDFS is beside the tests of
//! the real daemons.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::sync::Arc;

use bmq_storage::disk::PowerLossDisk;
use bmq_storage::faulty::FaultyStore;
use bmq_storage::{LocalStore, MemoryStore, SegmentStore, conformance};

async fn run(store: impl SegmentStore, races: usize) {
    let store: Arc<dyn SegmentStore> = Arc::new(store);
    conformance::run_all(|| async { store.clone() }, races).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    run(MemoryStore::new(), 300).await;
    run(MemoryStore::with_readable_open_files(), 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_conforms_on_the_machines_disk() {
    let folder = tempfile::tempdir().unwrap();
    run(LocalStore::open(folder.path()).await.unwrap(), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_conforms_on_a_simulated_disk() {
    let disk = PowerLossDisk::new(1);
    run(LocalStore::open_on(disk.boot(), "/data").await.unwrap(), 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_without_faults_changes_nothing() {
    run(FaultyStore::new(MemoryStore::new()), 300).await;
}
