//! The index beside a segment: a small file, written whole and read whole.
//!
//! It is written and closed under another name and then renamed, which HDFS does in one step also over a file that is
//! there. So nobody sees a part of it, and several may write it at once.

use bmq_proto::BytePosition;
use bytes::Bytes;

use super::core::Core;
use super::reading::{open, read_range};
use crate::{SegmentPath, StoreError};

/// An index is read into memory whole: one that is larger than this is none of ours.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// Writes and syncs the index, and gives it its name.
pub(super) async fn write(core: &Core, path: SegmentPath, content: Bytes) -> Result<(), StoreError> {
    let source = core.unfinished_file("index");
    let mut open = core.janitor.open_file(source.clone());
    let (writing, target) = (core.clients.writing(), core.absolute(path.index_path()));
    let options = core.write_options();
    let written = core.call(async move {
        let mut file = writing.create(&source, options).await?;
        if !content.is_empty() {
            file.write_bytes(content).await?;
            file.hsync().await?;
        }
        file.close().await?;
        writing.rename(&source, &target, true).await
    });
    written.await.map_err(|failure| failure.at(path.index_path(), "writing"))?;
    open.leave();
    Ok(())
}

/// Reads the index whole.
pub(super) async fn read(core: &Core, path: SegmentPath) -> Result<Bytes, StoreError> {
    let name = path.index_path();
    let reader = open(core, core.absolute(&name)).await.map_err(|failure| failure.at(&name, "opening"))?;
    let length = reader.file_length() as u64;
    if length > MAX_INDEX_BYTES {
        let reason = format!("an index of {length} bytes is not read into memory");
        return Err(StoreError::Damaged { path: name, position: MAX_INDEX_BYTES, reason });
    }
    let bytes = read_range(core, reader, BytePosition::ZERO, BytePosition(length)).await;
    bytes.map_err(|failure| failure.at(name, "reading"))
}
