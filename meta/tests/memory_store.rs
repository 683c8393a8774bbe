//! The memory store is a `MetaStore`, and forgets old events when there are many.

use std::sync::Arc;

use bmq_meta::store::{ErrorKind, MemoryStore, MetaStore, Outcome, Revision, Transaction};
use futures::StreamExt;

#[tokio::test]
async fn conforms() {
    bmq_meta::conformance::run(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_watch_that_falls_behind_is_told_so() {
    let store = MemoryStore::new();
    let mut behind = store.watch("k", Revision(1)).await.unwrap();
    loop {
        let outcome = store.transact(Transaction::default().put("k", "x")).await.unwrap();
        if outcome == Outcome::Committed(Revision(20_000)) {
            break;
        }
    }
    let error = behind.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Compacted);
    assert!(behind.next().await.is_none());
}

#[tokio::test]
async fn dropping_the_store_ends_its_watches() {
    let store = MemoryStore::new();
    let mut watch = store.watch("k", Revision(1)).await.unwrap();
    drop(store);
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
    assert!(watch.next().await.is_none());
}
