//! Leases and the keys that they keep.

use super::*;
use crate::store::{ErrorKind, LeaseId, MIN_LEASE};
use bmq_proto::Happened;

const LONG: Duration = Duration::from_secs(60);

async fn grant(store: &dyn MetaStore, time_to_live: Duration) -> LeaseId {
    store.grant(time_to_live).await.expect("the store works")
}

async fn put_leased(store: &dyn MetaStore, key: &str, lease: LeaseId) -> Revision {
    commit(store, Transaction::default().put_leased(key, "x", lease)).await
}

pub(super) async fn a_revoked_lease_deletes_its_keys(store: &dyn MetaStore, prefix: &str) {
    let [a, b, kept] = ["a", "b", "kept"].map(|name| format!("{prefix}{name}"));
    let lease = grant(store, LONG).await;
    put(store, &kept, "x").await;
    put_leased(store, &a, lease).await;
    let last = put_leased(store, &b, lease).await;
    let mut stream = store.watch(prefix, last.next()).await.expect("the store works");
    store.keep_alive(lease).await.expect("the lease lives");
    store.revoke(lease).await.expect("the store works");
    assert_eq!((read(store, &a).await, read(store, &b).await), (None, None));
    assert!(read(store, &kept).await.is_some());
    let mut gone: Vec<_> = next_events(&mut stream, 2).await.iter().map(told).collect();
    gone.sort();
    assert_eq!(gone, [format!("{a} gone"), format!("{b} gone")]);
    store.revoke(lease).await.expect("ending what has ended is no error");
}

pub(super) async fn a_lease_ends_by_itself_unless_kept_alive(store: &dyn MetaStore, prefix: &str) {
    let [left, kept] = ["left", "kept"].map(|name| format!("{prefix}{name}"));
    let (leaving, staying) = (grant(store, MIN_LEASE).await, grant(store, MIN_LEASE).await);
    put_leased(store, &kept, staying).await;
    let last = put_leased(store, &left, leaving).await;
    let mut stream = store.watch(prefix, last.next()).await.expect("the store works");
    let mut beat = tokio::time::interval(MIN_LEASE / 4);
    let ended = next_events(&mut stream, 1);
    tokio::pin!(ended);
    let events = loop {
        tokio::select! {
            events = &mut ended => break events,
            _ = beat.tick() => store.keep_alive(staying).await.expect("the lease is kept alive"),
        }
    };
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), [format!("{left} gone")]);
    assert!(read(store, &kept).await.is_some(), "a lease that is kept alive stays");
    assert_eq!(store.keep_alive(leaving).await.expect_err("it has ended").kind, ErrorKind::LeaseGone);
    store.revoke(staying).await.expect("the store works");
}

pub(super) async fn a_key_belongs_to_its_last_writer(store: &dyn MetaStore, prefix: &str) {
    let [moved, freed] = ["moved", "freed"].map(|name| format!("{prefix}{name}"));
    let (older, newer) = (grant(store, LONG).await, grant(store, LONG).await);
    put_leased(store, &moved, older).await;
    put_leased(store, &freed, older).await;
    put_leased(store, &moved, newer).await;
    put(store, &freed, "x").await;
    store.revoke(older).await.expect("the store works");
    assert!(read(store, &moved).await.is_some() && read(store, &freed).await.is_some());
    store.revoke(newer).await.expect("the store works");
    assert_eq!(read(store, &moved).await, None);
    assert!(read(store, &freed).await.is_some());
}

pub(super) async fn an_ended_lease_takes_nothing(store: &dyn MetaStore, prefix: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{prefix}{name}"));
    let lease = grant(store, LONG).await;
    store.revoke(lease).await.expect("the store works");
    let transaction = Transaction::default().put(&a, "x").put_leased(&b, "x", lease);
    let error = store.transact(transaction).await.expect_err("the lease has ended");
    assert_eq!((error.kind, error.happened), (ErrorKind::LeaseGone, Happened::NotApplied), "{error}");
    assert_eq!((read(store, &a).await, read(store, &b).await), (None, None));
    assert_eq!(store.keep_alive(lease).await.expect_err("it has ended").kind, ErrorKind::LeaseGone);
}

pub(super) async fn a_lease_has_a_shortest_life(store: &dyn MetaStore, _prefix: &str) {
    let error = store.grant(MIN_LEASE / 2).await.expect_err("too short");
    assert_eq!(error.kind, ErrorKind::Invalid);
}
