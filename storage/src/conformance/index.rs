//! Index files.

use bytes::Bytes;

use super::{create, fresh_path, pattern};
use crate::segment::FIRST_BATCH_POSITION;
use crate::{SegmentStore, StoreError};

pub(super) async fn an_index_is_read_back_and_replaced(store: &dyn SegmentStore) {
    let path = fresh_path();
    let writer = create(store, path).await;
    let none = store.read_index(path).await;
    assert!(matches!(none, Err(StoreError::NotFound { .. })), "an index that was not written: {none:?}");
    for length in [100, 3_000_000, 10, 0] {
        let content = pattern(FIRST_BATCH_POSITION, length);
        store.write_index(path, content.clone()).await.expect("an index can be written, also over another");
        let found: Bytes = store.read_index(path).await.expect("an index that was written is there");
        assert!(found == content, "the index of {length} bytes came back otherwise");
    }
    writer.close().await.expect("a healthy writer closes");
    store.read_index(path).await.expect("closing the data file leaves the index alone");
}
