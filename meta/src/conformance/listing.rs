//! Listings of key ranges.

use super::*;
use crate::store::{ErrorKind, ListRequest, Order, Page, after_key};

async fn fill(store: &dyn MetaStore, prefix: &str, count: usize) {
    let change = (0..count).fold(Transaction::default(), |it, number| it.put(format!("{prefix}{number:03}"), "x"));
    commit(store, change).await;
}

async fn list(store: &dyn MetaStore, request: ListRequest) -> Page {
    store.list(request).await.expect("the store works")
}

/// The listed keys without the prefix.
fn names(page: &Page, prefix: &str) -> Vec<String> {
    page.entries.iter().map(|entry| entry.key.strip_prefix(prefix).expect("a key of this prefix").to_owned()).collect()
}

pub(super) async fn a_prefix_is_listed_in_order(store: &dyn MetaStore, prefix: &str) {
    for (name, value) in [("b/2", "two"), ("b/10", "ten"), ("c", "after"), ("b", "before"), ("b0", "beside")] {
        put(store, format!("{prefix}{name}"), value).await;
    }
    let page = list(store, ListRequest::prefix(&format!("{prefix}b/"))).await;
    assert_eq!(names(&page, prefix), ["b/10", "b/2"]);
    assert_eq!(page.entries[1].value, "two");
    assert!(!page.more);
    let key = format!("{prefix}b/2");
    assert_eq!(read(store, &key).await.map(|found| found.1), Some(page.entries[1].version));
    let empty = list(store, ListRequest::prefix(&format!("{prefix}z/"))).await;
    assert!(empty.entries.is_empty() && !empty.more && empty.revision >= page.revision);
    let reversed = ListRequest { start: key.clone(), end: key, ..ListRequest::prefix(prefix) };
    assert!(list(store, reversed).await.entries.is_empty(), "an empty range");
}

pub(super) async fn ranges_can_be_listed_from_their_end(store: &dyn MetaStore, prefix: &str) {
    fill(store, prefix, 10).await;
    let request = ListRequest {
        end: after_key(&format!("{prefix}006")),
        order: Order::Descending,
        limit: 2,
        ..ListRequest::prefix(prefix)
    };
    let first = list(store, request.clone()).await;
    assert_eq!(names(&first, prefix), ["006", "005"]);
    assert!(first.more);
    let second = list(store, request.after(&first)).await;
    assert_eq!(names(&second, prefix), ["004", "003"]);
}

pub(super) async fn pages_tell_of_one_revision(store: &dyn MetaStore, prefix: &str) {
    fill(store, prefix, 10).await;
    let mut request = ListRequest { limit: 4, ..ListRequest::prefix(prefix) };
    let mut listed = Vec::new();
    loop {
        let page = list(store, request.clone()).await;
        listed.extend(names(&page, prefix));
        if !page.more {
            break;
        }
        assert_eq!(page.entries.len(), 4);
        request = request.after(&page);
        let change = Transaction::default().put(format!("{prefix}999"), "late").delete(format!("{prefix}009"));
        commit(store, change).await;
    }
    let expected: Vec<_> = (0..10).map(|number| format!("{number:03}")).collect();
    assert_eq!(listed, expected);
    let now = list(store, ListRequest::prefix(prefix)).await;
    assert_eq!(names(&now, prefix).last().map(String::as_str), Some("999"));
    assert_eq!(now.entries.len(), 10);
}

pub(super) async fn a_revision_that_never_was_is_refused(store: &dyn MetaStore, prefix: &str) {
    let now = put(store, format!("{prefix}k"), "x").await;
    let request = ListRequest { at: Some(Revision(now.0 + 1_000_000)), ..ListRequest::prefix(prefix) };
    let error = store.list(request).await.expect_err("the future is not known");
    assert!(matches!(error.kind, ErrorKind::Compacted | ErrorKind::Unavailable), "{error}");
}
