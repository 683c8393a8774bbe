//! Watches of a prefix.

use super::*;

async fn watch(store: &dyn MetaStore, prefix: &str, from: Revision) -> EventStream {
    store.watch(prefix, from).await.expect("the store works")
}

fn all_told(events: &[Event], prefix: &str) -> Vec<String> {
    events.iter().map(|event| told(event).replace(prefix, "")).collect()
}

pub(super) async fn events_come_in_order_from_the_revision_asked_for(store: &dyn MetaStore, prefix: &str) {
    put(store, format!("{prefix}a"), "0").await;
    let from = put(store, format!("{prefix}a"), "1").await;
    let mut early = watch(store, prefix, from).await;
    put(store, format!("{prefix}b"), "2").await;
    commit(store, Transaction::default().delete(format!("{prefix}a"))).await;
    let last = put(store, format!("{prefix}a"), "3").await;
    let events = next_events(&mut early, 4).await;
    assert_eq!(all_told(&events, prefix), ["a=1", "b=2", "a gone", "a=3"]);
    let Event::Put(entry) = &events[3] else { panic!("{events:?}") };
    assert_eq!(entry.version, Version(last.0));
    let mut late = watch(store, prefix, last).await;
    assert_eq!(all_told(&next_events(&mut late, 1).await, prefix), ["a=3"]);
}

pub(super) async fn one_transaction_is_told_at_once(store: &dyn MetaStore, prefix: &str) {
    let before = put(store, format!("{prefix}z"), "0").await;
    let mut stream = watch(store, prefix, before.next()).await;
    let change = (0..50).fold(Transaction::default(), |it, number| it.put(format!("{prefix}{number:02}"), "x"));
    let committed = commit(store, change.delete(format!("{prefix}z"))).await;
    loop {
        let step = tokio::time::timeout(SOON, stream.next()).await.expect("events come soon");
        let step = step.expect("the watch goes on").expect("the watch works");
        if !step.events.is_empty() {
            assert_eq!((step.events.len(), step.revision), (51, committed));
            break;
        }
    }
}

pub(super) async fn a_broken_off_watch_resumes_without_a_gap(store: &dyn MetaStore, prefix: &str) {
    let first = put(store, format!("{prefix}k"), "1").await;
    let mut stream = watch(store, prefix, first).await;
    let step = stream.next().await.expect("the watch goes on").expect("the watch works");
    drop(stream);
    put(store, format!("{prefix}k"), "2").await;
    put(store, format!("{prefix}k"), "3").await;
    let mut resumed = watch(store, prefix, step.revision.next()).await;
    assert_eq!(all_told(&next_events(&mut resumed, 2).await, prefix), ["k=2", "k=3"]);
}

pub(super) async fn other_prefixes_are_not_told(store: &dyn MetaStore, prefix: &str) {
    let before = put(store, format!("{prefix}x"), "0").await;
    let mut stream = watch(store, &format!("{prefix}in/"), before.next()).await;
    put(store, format!("{prefix}in"), "no").await;
    put(store, format!("{prefix}in0"), "no").await;
    put(store, format!("{prefix}in/a"), "yes").await;
    assert_eq!(all_told(&next_events(&mut stream, 1).await, prefix), ["in/a=yes"]);
}
