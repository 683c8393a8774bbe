//! Packs the items that are ready into messages of a good size.
//!
//! While the connection is slow, items gather and messages grow towards the aim; while it is fast, each item goes at
//! once. No message waits for another item.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

/// A stream of groups of items, from a stream of groups as they came. A group is never empty, and passes `aim_bytes`
/// only if it is a single item.
pub(super) struct Aggregate<S, T> {
    /// `None` once it has ended.
    groups: Option<S>,
    size_of: fn(&T) -> usize,
    aim_bytes: usize,
    waiting: VecDeque<T>,
    waiting_bytes: usize,
}

/// Groups the items of `groups` anew, so that each group's sizes add up to at most `aim_bytes` where possible.
pub(super) fn aggregate<S, T>(groups: S, size_of: fn(&T) -> usize, aim_bytes: usize) -> Aggregate<S, T>
where
    S: Stream<Item = Vec<T>> + Unpin,
{
    Aggregate { groups: Some(groups), size_of, aim_bytes, waiting: VecDeque::new(), waiting_bytes: 0 }
}

impl<S, T> Aggregate<S, T> {
    fn take_group(&mut self) -> Vec<T> {
        let mut group = Vec::new();
        let mut group_bytes = 0;
        while let Some(item) = self.waiting.front() {
            let size = (self.size_of)(item);
            if !group.is_empty() && group_bytes + size > self.aim_bytes {
                break;
            }
            group_bytes += size;
            group.extend(self.waiting.pop_front());
        }
        self.waiting_bytes -= group_bytes;
        group
    }
}

impl<S, T> Stream for Aggregate<S, T>
where
    S: Stream<Item = Vec<T>> + Unpin,
    T: Unpin,
{
    type Item = Vec<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Vec<T>>> {
        while self.waiting_bytes < self.aim_bytes {
            let Some(groups) = &mut self.groups else { break };
            match Pin::new(groups).poll_next(context) {
                Poll::Ready(Some(group)) => {
                    self.waiting_bytes += group.iter().map(self.size_of).sum::<usize>();
                    self.waiting.extend(group);
                }
                Poll::Ready(None) => self.groups = None,
                Poll::Pending if self.waiting.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if self.waiting.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(self.take_group()))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::StreamExt;
    use futures::stream;

    use super::*;

    fn check(groups: &[&[usize]], expected: &[&[usize]]) {
        let groups: Vec<Vec<usize>> = groups.iter().map(|group| group.to_vec()).collect();
        let regrouped = aggregate(stream::iter(groups), |size| *size, 10);
        let found: Vec<Vec<usize>> = regrouped.collect().now_or_never().expect("nothing is waited for");
        assert_eq!(found, expected);
    }

    #[test]
    fn groups_fill_up_to_the_aim() {
        check(&[], &[]);
        check(&[&[], &[]], &[]);
        check(&[&[3], &[3], &[3], &[3]], &[&[3, 3, 3], &[3]]);
        check(&[&[3, 3, 3, 3, 3]], &[&[3, 3, 3], &[3, 3]]);
        check(&[&[10], &[10]], &[&[10], &[10]]);
    }

    #[test]
    fn a_large_item_travels_alone() {
        check(&[&[1, 25, 1]], &[&[1], &[25], &[1]]);
    }

    #[test]
    fn items_of_no_size_still_come_out() {
        check(&[&[0, 0], &[0]], &[&[0, 0, 0]]);
    }

    #[test]
    fn nothing_waits_for_more() {
        let groups = stream::iter([vec![1], vec![2]]).chain(stream::pending());
        let mut groups = aggregate(Box::pin(groups), |size| *size, 10);
        assert_eq!(groups.next().now_or_never(), Some(Some(vec![1, 2])));
        assert_eq!(groups.next().now_or_never(), None);
    }
}
