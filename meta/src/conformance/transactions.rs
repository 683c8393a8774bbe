//! Transactions and reads of single keys.

use super::*;
use crate::store::{ErrorKind, MAX_OPERATIONS, MAX_TRANSACTION_BYTES};
use bmq_proto::Happened;

pub(super) async fn values_have_the_version_that_wrote_them(store: &dyn MetaStore, prefix: &str) {
    let key = format!("{prefix}k");
    assert_eq!(read(store, &key).await, None);
    let first = put(store, &key, "one").await;
    assert_eq!(read(store, &key).await, Some(("one".to_owned(), Version(first.0))));
    let second = put(store, &key, "two").await;
    assert!(second > first, "revisions grow");
    assert_eq!(read(store, &key).await, Some(("two".to_owned(), Version(second.0))));
    let third = commit(store, Transaction::default().expect(&key, at(second)).delete(&key)).await;
    assert_eq!(read(store, &key).await, None);
    let fourth = put(store, &key, "two").await;
    assert!(fourth > third);
    assert_eq!(read(store, &key).await, Some(("two".to_owned(), Version(fourth.0))), "a new value, a new version");
}

pub(super) async fn a_failed_compare_changes_nothing(store: &dyn MetaStore, prefix: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{prefix}{name}"));
    let written = put(store, &a, "one").await;
    let change = || Transaction::default().put(&b, "x").delete(&a);
    for wrong in [
        change().expect(&a, Expected::Absent),
        change().expect(&a, at(written.next())),
        change().expect(&a, at(written)).expect(&c, at(written)),
    ] {
        assert_eq!(store.transact(wrong).await.expect("the store works"), Outcome::Conflict);
    }
    assert_eq!(read(store, &a).await, Some(("one".to_owned(), Version(written.0))));
    assert_eq!(read(store, &b).await, None);
    commit(store, change().expect(&a, at(written)).expect(&c, Expected::Absent)).await;
    assert_eq!(read(store, &a).await, None);
    assert_eq!(read(store, &b).await.map(|found| found.0).as_deref(), Some("x"));
}

pub(super) async fn a_transaction_without_changes_only_compares(store: &dyn MetaStore, prefix: &str) {
    let key = format!("{prefix}k");
    let written = put(store, &key, "one").await;
    let now = commit(store, Transaction::default().expect(&key, at(written))).await;
    assert!(now >= written);
    let wrong = Transaction::default().expect(&key, Expected::Absent);
    assert_eq!(store.transact(wrong).await.expect("the store works"), Outcome::Conflict);
    assert_eq!(read(store, &key).await, Some(("one".to_owned(), Version(written.0))));
}

pub(super) async fn deleting_what_is_absent_is_no_change(store: &dyn MetaStore, prefix: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{prefix}{name}"));
    commit(store, Transaction::default().delete(&a)).await;
    commit(store, Transaction::default().delete(&a).put(&b, "x")).await;
    assert_eq!(read(store, &b).await.map(|found| found.0).as_deref(), Some("x"));
}

pub(super) async fn bounds_are_kept(store: &dyn MetaStore, prefix: &str) {
    let key = |number: usize| format!("{prefix}{number}");
    let too_many = (0..=MAX_OPERATIONS).fold(Transaction::default(), |it, number| it.put(key(number), "x"));
    let too_many_compares =
        (0..=MAX_OPERATIONS).fold(Transaction::default(), |it, number| it.expect(key(number), Expected::Absent));
    let too_large = Transaction::default().put(key(0), vec![0; MAX_TRANSACTION_BYTES]);
    let twice = Transaction::default().put(key(0), "x").delete(key(0));
    for wrong in [too_many, too_many_compares, too_large, twice] {
        let error = store.transact(wrong).await.expect_err("beyond the bounds");
        assert_eq!((error.kind, error.happened), (ErrorKind::Invalid, Happened::NotApplied), "{error}");
    }
    let many: Vec<_> = (0..=MAX_OPERATIONS).map(key).collect();
    assert_eq!(store.get_many(&many).await.expect_err("beyond the bounds").kind, ErrorKind::Invalid);
    assert_eq!(read(store, &key(0)).await, None);
}

pub(super) async fn the_largest_transaction_passes(store: &dyn MetaStore, prefix: &str) {
    let key = |number: usize| format!("{prefix}{number:03}");
    let value = vec![7; MAX_TRANSACTION_BYTES / MAX_OPERATIONS - 2 * key(0).len()];
    let largest = (0..MAX_OPERATIONS).fold(Transaction::default(), |transaction, number| {
        transaction.expect(key(number), Expected::Absent).put(key(number), value.clone())
    });
    commit(store, largest).await;
    let keys: Vec<_> = (0..MAX_OPERATIONS).map(key).collect();
    let found = store.get_many(&keys).await.expect("the store works");
    assert!(found.iter().all(|found| found.as_ref().is_some_and(|found| found.value == value)));
    let deletion = keys.iter().fold(Transaction::default(), |transaction, key| transaction.delete(key));
    commit(store, deletion).await;
}

pub(super) async fn many_keys_are_read_in_order(store: &dyn MetaStore, prefix: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{prefix}{name}"));
    commit(store, Transaction::default().put(&a, "1").put(&c, "3")).await;
    let found = store.get_many(&[c, b, a]).await.expect("the store works");
    let values: Vec<_> = found.iter().map(|found| found.as_ref().map(|found| &found.value[..])).collect();
    assert_eq!(values, [Some(&b"3"[..]), None, Some(&b"1"[..])]);
    assert!(store.get_many(&[]).await.expect("the store works").is_empty());
}

pub(super) async fn increments_of_many_tasks_are_not_lost(store: &dyn MetaStore, prefix: &str) {
    const TASKS: usize = 8;
    const EACH: usize = 10;
    let key = format!("{prefix}counter");
    let tasks = (0..TASKS).map(|_| async {
        for _ in 0..EACH {
            loop {
                let found = store.get(&key).await.expect("the store works");
                let before: usize = found.as_ref().map_or(0, |found| {
                    std::str::from_utf8(&found.value).ok().and_then(|text| text.parse().ok()).expect("a number")
                });
                let transaction = Transaction::default()
                    .expect(&key, Expected::unchanged(found.as_ref()))
                    .put(&key, (before + 1).to_string());
                if let Outcome::Committed(_) = store.transact(transaction).await.expect("the store works") {
                    break;
                }
            }
        }
    });
    futures::future::join_all(tasks).await;
    assert_eq!(read(store, &key).await.map(|found| found.0), Some((TASKS * EACH).to_string()));
}
