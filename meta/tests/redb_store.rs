//! The redb store is a `MetaStore`, keeps what it committed, and forgets sessions.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::Random;
use bmq_meta::store::power_loss::PowerLossDisk;
use bmq_meta::store::{ErrorKind, MetaStore, MetaStoreError, Outcome, RedbStore, Revision, Transaction};
use bmq_proto::Happened;

/// Opens the file once the last handle of a store that was just dropped has let go of it.
async fn reopen(path: &Path) -> RedbStore {
    loop {
        match RedbStore::open(path).await {
            Err(error) if error.message.contains("in use") => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test]
async fn conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("meta.redb")).await.unwrap();
    bmq_meta::conformance::run(Arc::new(store)).await;
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let _store = RedbStore::open(&path).await.unwrap();
    let error = RedbStore::open(&path).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    std::fs::write(&path, b"not a database at all").unwrap();
    let error = RedbStore::open(&path).await.err().unwrap();
    assert!(error.chain().contains("meta.redb"), "{}", error.chain());
}

#[tokio::test]
async fn values_and_revisions_outlive_the_process_and_leases_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.redb");
    let store = RedbStore::open(&path).await.unwrap();
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let change = Transaction::default().put("kept", "x").put_leased("session", "x", lease);
    let Outcome::Committed(before) = store.transact(change).await.unwrap() else { panic!("conflict") };
    drop(store);

    let store = reopen(&path).await;
    assert_eq!(store.get("kept").await.unwrap().unwrap().version.0, before.0);
    assert_eq!(store.get("session").await.unwrap(), None);
    assert_eq!(store.keep_alive(lease).await.unwrap_err().kind, ErrorKind::LeaseGone);
    let Outcome::Committed(after) = store.transact(Transaction::default().put("k", "x")).await.unwrap() else {
        panic!("conflict")
    };
    assert!(after > before, "revisions never go back");
    let mut early = store.watch("", before).await.unwrap();
    let told = futures::StreamExt::next(&mut early).await.unwrap();
    assert_eq!(told.unwrap_err().kind, ErrorKind::Compacted, "events before the start are forgotten");
}

async fn open_on(disk: &PowerLossDisk) -> Result<RedbStore, MetaStoreError> {
    let disk = disk.clone();
    RedbStore::open_backend("disk", move || disk.open()).await
}

/// One value that tells its number, over a few pages so that a torn one would show.
fn value(number: u64) -> Vec<u8> {
    number.to_string().repeat(1 + (number % 977) as usize).into_bytes()
}

fn change(number: u64) -> Transaction {
    Transaction::default().put(format!("k/{}", number % 53), value(number)).put("newest", number.to_string())
}

async fn newest(store: &RedbStore) -> u64 {
    let found = store.get("newest").await.unwrap();
    found.map_or(0, |found| std::str::from_utf8(&found.value).unwrap().parse().unwrap())
}

/// Commits until the power goes; returns the last number that was committed for certain.
async fn commit_until_power_goes(store: &RedbStore, mut number: u64) -> u64 {
    /// More than one write and one sync each can make: a commit that does not reach the disk must not go on for ever.
    const MOST: u64 = 1_000;
    let first = number;
    while number < first + MOST {
        match store.transact(change(number + 1)).await {
            Ok(outcome) => assert!(matches!(outcome, Outcome::Committed(_))),
            Err(_) => break,
        }
        number += 1;
    }
    number
}

#[tokio::test]
async fn every_commit_outlives_a_loss_of_power() {
    for seed in 0..60 {
        println!("seed {seed}");
        let random = Random::from_seed(seed);
        let disk = PowerLossDisk::new();
        let mut committed = 0;
        for _ in 0..8 {
            disk.cut_after(20 + random.below(300));
            // The power may go while the file is being opened.
            let Ok(store) = open_on(&disk).await else {
                disk.lose_power(&random);
                continue;
            };
            committed = commit_until_power_goes(&store, committed).await;
            disk.lose_power(&random);
            drop(store);

            let store = open_on(&disk).await.unwrap();
            let found = newest(&store).await;
            assert!(found == committed || found == committed + 1, "committed {committed}, found {found}");
            for number in found.saturating_sub(52).max(1)..=found {
                let key = format!("k/{}", number % 53);
                assert_eq!(store.get(&key).await.unwrap().unwrap().value, value(number), "{key}");
            }
            committed = found;
            drop(store);
            disk.lose_power(&random);
        }
        assert!(disk.syncs() > 0);
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room() {
    let disk = PowerLossDisk::new();
    let store = open_on(&disk).await.unwrap();
    disk.set_room(Some(2_000));
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    let mut number = 0;
    let error = loop {
        let large = Transaction::default().put(format!("{number:06}"), vec![1; 500_000]);
        match store.transact(large).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Unavailable, "{}", error.chain());
    assert!(number > 0);
    disk.set_room(None);
    let outcome = store.transact(Transaction::default().put("after", "x")).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed(_)));
    assert!(store.get("000000").await.unwrap().is_some());
    // Watches have missed nothing: each value that is there was told.
    let mut told = 0;
    let unclear = store.get(&format!("{number:06}")).await.unwrap().is_some();
    assert!(!unclear || error.happened == Happened::Unknown);
    let expected = number + usize::from(unclear) + 1;
    while told < expected {
        told += futures::StreamExt::next(&mut watch).await.unwrap().unwrap().events.len();
    }
}
