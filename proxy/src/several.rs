//! Many items of one request: some at a time, answered in their order.

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

/// What `act` makes of each item, at most `at_once` of them under way together.
///
/// The futures are boxed: without that the compiler cannot see that the whole may move between threads.
pub async fn several<'a, T, R>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    act: impl FnMut(T) -> BoxFuture<'a, R>,
) -> Vec<R> {
    let futures: Vec<BoxFuture<'a, R>> = items.into_iter().map(act).collect();
    stream::iter(futures).buffered(at_once).collect().await
}
