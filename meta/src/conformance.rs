//! What every `MetaStore` must do: one suite, run on each of them.
//!
//! Each case uses keys of its own, so that all can run on one store, also at the same time and again.

mod leases;
mod listing;
mod transactions;
mod watches;

use std::time::Duration;

use futures::StreamExt;

use crate::store::{Event, EventStream, Expected, MetaStore, Outcome, Revision, SharedStore, Transaction, Version};

/// How long a case waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

/// Runs all cases, one after the other, each printed by name.
pub async fn run(store: SharedStore) {
    let store = &*store;
    macro_rules! cases {
        ($($module:ident :: $case:ident,)*) => {$(
            println!("conformance: {}", stringify!($case));
            let prefix = format!("conformance/{}/", stringify!($case));
            tokio::time::timeout(SOON * 2, $module::$case(store, &prefix)).await.expect("the case took too long");
        )*};
    }
    cases! {
        transactions::values_have_the_version_that_wrote_them,
        transactions::a_failed_compare_changes_nothing,
        transactions::a_transaction_without_changes_only_compares,
        transactions::deleting_what_is_absent_is_no_change,
        transactions::bounds_are_kept,
        transactions::the_largest_transaction_passes,
        transactions::many_keys_are_read_in_order,
        transactions::increments_of_many_tasks_are_not_lost,
        listing::a_prefix_is_listed_in_order,
        listing::ranges_can_be_listed_from_their_end,
        listing::pages_tell_of_one_revision,
        listing::a_revision_that_never_was_is_refused,
        watches::events_come_in_order_from_the_revision_asked_for,
        watches::one_transaction_is_told_at_once,
        watches::a_broken_off_watch_resumes_without_a_gap,
        watches::other_prefixes_are_not_told,
        leases::a_revoked_lease_deletes_its_keys,
        leases::a_lease_ends_by_itself_unless_kept_alive,
        leases::a_key_belongs_to_its_last_writer,
        leases::an_ended_lease_takes_nothing,
        leases::a_lease_has_a_shortest_life,
    }
}

/// Commits, or fails the test.
async fn commit(store: &dyn MetaStore, transaction: Transaction) -> Revision {
    match store.transact(transaction).await.expect("the store works") {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a conflict that must not be"),
    }
}

async fn put(store: &dyn MetaStore, key: impl Into<String>, value: &'static str) -> Revision {
    commit(store, Transaction::default().put(key, value)).await
}

async fn read(store: &dyn MetaStore, key: &str) -> Option<(String, Version)> {
    let found = store.get(key).await.expect("the store works")?;
    Some((String::from_utf8_lossy(&found.value).into_owned(), found.version))
}

/// The next events, however they are grouped.
async fn next_events(stream: &mut EventStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let step = tokio::time::timeout(SOON, stream.next()).await.expect("events come soon");
        events.extend(step.expect("the watch goes on").expect("the watch works").events);
    }
    events
}

fn told(event: &Event) -> String {
    match event {
        Event::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Event::Delete { key } => format!("{key} gone"),
    }
}

fn at(revision: Revision) -> Expected {
    Expected::Version(Version(revision.0))
}
