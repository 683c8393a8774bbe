//! Many items of one request: some at a time, answered in their order.

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

/// What `act` makes of each item, at most `at_once` of them under way together; the others are not begun.
///
/// The futures are boxed: without that the compiler cannot see that the whole may move between threads.
pub async fn several<'a, T, R>(
    items: impl IntoIterator<Item = T>,
    at_once: usize,
    act: impl FnMut(T) -> BoxFuture<'a, R>,
) -> Vec<R> {
    stream::iter(items).map(act).buffered(at_once).collect().await
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn answers_keep_the_order_and_few_are_under_way() {
        let room = Semaphore::new(3);
        let act = |number: u64| {
            let permit = room.try_acquire().expect("no more than three are begun");
            async move {
                // Each takes fewer turns than the one before.
                for _ in number..10 {
                    tokio::task::yield_now().await;
                }
                drop(permit);
                number
            }
            .boxed()
        };
        assert_eq!(several(0..10, 3, act).await, (0..10).collect::<Vec<_>>());
    }
}
