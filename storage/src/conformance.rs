//! What every store must do, as a suite that each store's tests run.
//!
//! Each behaviour works in a folder of its own, so one store serves them all, and they can run on a store in use.

mod files;
mod index;
mod lifecycle;
mod writers;

use std::sync::Arc;
use std::time::Duration;

use bmq_proto::{BytePosition, ClusterId, Epoch, FileId, PartitionId, TopicId, TopicPartition};
use bytes::Bytes;

use crate::segment::SegmentHeader;
use crate::{FolderPath, SegmentPath, SegmentStore, SegmentWriter, StoreError, WriterProgress, WriterState};

/// How long anything that must happen may take, on a slow store too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries of a call that answers "not yet" and offers nothing to wait for.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Holds a store to the contract. `make` gives a handle to it; `races` is how often writers and fencers race.
/// Panics at the first behaviour that is wrong.
pub async fn run_all<F>(make: impl Fn() -> F, races: usize)
where
    F: Future<Output = Arc<dyn SegmentStore>>,
{
    files::taken_names_are_refused(&*make().await).await;
    files::closed_files_read_exactly(&*make().await).await;
    files::open_files_are_readable_as_declared(&*make().await).await;
    files::missing_files_are_not_found(&*make().await).await;
    files::listing_names_segments_only(&*make().await).await;
    files::deleting_is_idempotent(&*make().await).await;
    files::deleting_a_topic_takes_all_of_it(&*make().await).await;
    index::an_index_is_read_back_and_replaced(&*make().await).await;
    writers::appends_get_positions_and_become_durable(&*make().await).await;
    writers::a_burst_of_appends_keeps_its_order(&*make().await).await;
    writers::oversize_appends_are_refused(&*make().await).await;
    writers::closing_fixes_the_length(&*make().await).await;
    writers::files_are_written_side_by_side(make().await).await;
    lifecycle::fencing_a_closed_file_tells_its_length(&*make().await).await;
    lifecycle::a_fenced_file_keeps_what_was_durable(&*make().await).await;
    lifecycle::a_fenced_writer_breaks(&*make().await).await;
    lifecycle::an_abandoned_file_is_recovered(&*make().await).await;
    for race in 0..races {
        lifecycle::a_fence_races_with_a_writer(&*make().await, race).await;
    }
}

/// A partition's folder that nothing else uses.
fn fresh_folder() -> FolderPath {
    let partition = TopicPartition { topic: TopicId::random(), partition: PartitionId(3) };
    FolderPath::new(ClusterId::random(), partition)
}

fn segment(folder: FolderPath, nonce: u64) -> SegmentPath {
    folder.segment(FileId { epoch: Epoch(1), nonce })
}

fn fresh_path() -> SegmentPath {
    segment(fresh_folder(), 1)
}

/// Creates a file and waits until its header is durable.
async fn create(store: &dyn SegmentStore, path: SegmentPath) -> Arc<dyn SegmentWriter> {
    let header = SegmentHeader::of(path).encode();
    let end = BytePosition(header.len() as u64);
    let writer = store.create(path, header).await.expect("a new name can be created");
    wait_durable(&*writer, end).await;
    writer
}

/// Bytes for `length` positions of a file from `start` on; each tells its position.
fn pattern(start: BytePosition, length: usize) -> Bytes {
    (start.0..start.0 + length as u64).map(pattern_byte).collect()
}

fn pattern_byte(position: u64) -> u8 {
    (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Appends patterned bytes after what was appended up to `start`; returns the new end.
fn append(writer: &dyn SegmentWriter, start: BytePosition, length: usize) -> BytePosition {
    let end = writer.append(vec![pattern(start, length)]).expect("a healthy writer takes an append");
    assert_eq!(end, start.plus(length as u64), "an append ends where its last byte stands");
    end
}

/// Waits until `position` is durable, watching that progress never goes back.
async fn wait_durable(writer: &dyn SegmentWriter, position: BytePosition) {
    let mut last = BytePosition::ZERO;
    let progress = wait_for(writer, |progress| {
        assert!(progress.durable >= last, "durable went back from {last} to {}", progress.durable);
        last = progress.durable;
        progress.durable >= position || progress.state != WriterState::Healthy
    });
    let progress = progress.await;
    assert!(progress.durable >= position, "{position} was not made durable: {progress:?}");
}

async fn wait_for(writer: &dyn SegmentWriter, done: impl FnMut(&WriterProgress) -> bool) -> WriterProgress {
    let mut progress = writer.progress();
    let found = tokio::time::timeout(PATIENCE, progress.wait_for(done)).await.expect("progress comes in time");
    found.expect("the writer is held").clone()
}

/// The file's length, once it is closed.
async fn recover(store: &dyn SegmentStore, path: SegmentPath) -> BytePosition {
    until_closed(|| store.recover(path)).await
}

/// Calls until the answer is no longer that the file is not closed yet.
async fn until_closed<T, F>(call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let attempts = async {
        loop {
            match call().await {
                Err(StoreError::NotClosed { .. }) => tokio::time::sleep(RETRY_PAUSE).await,
                answer => return answer.expect("the file closes"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempts).await.expect("a file is closed in time")
}

/// Reads a closed file and checks that it holds its header and then the pattern up to `end`.
async fn check_content(store: &dyn SegmentStore, path: SegmentPath, end: BytePosition) {
    let header = SegmentHeader::of(path).encode();
    let content = store.read(path, BytePosition::ZERO, end).await.expect("a closed file is readable");
    assert_eq!(content.len() as u64, end.0, "a read answers what was asked");
    assert!(content[..header.len()] == header[..], "the header of {path} is not what was written");
    check_pattern(&content[header.len()..], BytePosition(header.len() as u64));
}

fn check_pattern(bytes: &[u8], start: BytePosition) {
    let wrong = (start.0..).zip(bytes).find(|(position, byte)| pattern_byte(*position) != **byte);
    assert_eq!(wrong, None, "a byte is not what was written at its position");
}
