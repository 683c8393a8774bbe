//! The reading that recovery needs: producers from the newest intact index, then every batch after it.

use bmq_proto::BytePosition;
use bmq_proto::meta::SegmentRecord;
use bmq_proto::record_batch::NO_TIMESTAMP;
use bmq_storage::index::SegmentIndex;
use bmq_storage::{FolderPath, SegmentPath, SegmentStore, StoreError};

use crate::machine::{OpenScan, ScanReport, ScanRequest, ScanStop, StoreFault};
use crate::producer_table::ProducerTable;
use crate::scan::{SegmentScan, SegmentScanner};

/// How much of a file is read at once.
const READ_STEP: u64 = 4 << 20;

/// Runs the scan that the machine asked for.
pub async fn run(store: &dyn SegmentStore, folder: FolderPath, request: ScanRequest) -> Result<ScanReport, StoreFault> {
    let mut report = ScanReport {
        producers: Default::default(),
        forgetful: false,
        damaged: Vec::new(),
        indexes: Vec::new(),
        open: None,
    };
    let (mut producers, first) = newest_snapshot(store, folder, &request, &mut report).await?;
    for segment in &request.sealed[first..] {
        report.forgetful |= segment.compacted;
        let path = folder.segment(segment.file);
        let end = segment.end().ok_or_else(|| StoreFault::Damaged(format!("{path} has no end")))?;
        match scan_segment(store, folder, segment, end.position, producers.clone()).await {
            Ok(scan) if scan.end == end => {
                let index = scan.index.encode();
                if segment.is_closed() {
                    store.write_index(path, index.clone()).await?;
                }
                report.indexes.push((segment.file, index));
                producers = scan.producers;
            }
            Ok(scan) => {
                let reason = format!("it is good up to {:?} instead of {end:?}: {:?}", scan.end, scan.stop);
                report.damaged.push((segment.file, reason));
                producers = scan.producers;
            }
            Err(fault @ (StoreFault::NotFound | StoreFault::Damaged(_))) => {
                report.damaged.push((segment.file, format!("it cannot be read: {fault:?}")));
            }
            Err(fault) => return Err(fault),
        }
    }
    if let Some((segment, length)) = &request.open {
        let scan = scan_segment(store, folder, segment, *length, producers).await?;
        report.indexes.push((segment.file, scan.index.encode()));
        report.open = Some(OpenScan { file: segment.file, length: *length, end: scan.end, stop: scan.stop });
        producers = scan.producers;
    }
    report.producers = producers.snapshot();
    Ok(report)
}

/// The producers of the newest segment with an intact index, and the number of the segment after it.
async fn newest_snapshot(
    store: &dyn SegmentStore,
    folder: FolderPath,
    request: &ScanRequest,
    report: &mut ScanReport,
) -> Result<(ProducerTable, usize), StoreFault> {
    for (number, segment) in request.sealed.iter().enumerate().rev() {
        let path = folder.segment(segment.file);
        let bytes = match store.read_index(path).await {
            Ok(bytes) => bytes,
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => continue,
            Err(error) if request.without_indexes => {
                tracing::warn!(%path, %error, "index cannot be read, the data is");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(index) = SegmentIndex::decode(&bytes, path) else {
            tracing::warn!(%path, "index is damaged, it is made again");
            continue;
        };
        if segment.end().is_none_or(|end| index.end_offset != end.offset || index.end_position != end.position) {
            continue;
        }
        report.indexes.push((segment.file, bytes));
        return Ok((ProducerTable::from_snapshot(index.producers), number + 1));
    }
    Ok((ProducerTable::default(), 0))
}

/// Makes the index of a sealed segment whose file is closed.
pub async fn make_index(
    store: &dyn SegmentStore,
    folder: FolderPath,
    segment: &SegmentRecord,
    earlier: Vec<SegmentRecord>,
) -> Result<bytes::Bytes, StoreFault> {
    let mut sealed: Vec<SegmentRecord> = earlier.into_iter().filter(|before| before.end().is_some()).collect();
    sealed.push(segment.clone());
    let report = run(store, folder, ScanRequest { sealed, open: None, without_indexes: false }).await?;
    if let Some((_, reason)) = report.damaged.into_iter().find(|(file, _)| *file == segment.file) {
        return Err(StoreFault::Damaged(reason));
    }
    let found = report.indexes.into_iter().find(|(file, _)| *file == segment.file);
    found.map(|(_, index)| index).ok_or_else(|| StoreFault::Failed("the scan made no index".to_owned()))
}

/// The highest timestamp that an index tells; `None` if no record has one.
pub fn max_timestamp_ms(index: &[u8], path: SegmentPath) -> Result<Option<i64>, StoreFault> {
    let index = SegmentIndex::decode(index, path)?;
    Ok(index.max_timestamp_ms().filter(|timestamp_ms| *timestamp_ms > NO_TIMESTAMP))
}

async fn scan_segment(
    store: &dyn SegmentStore,
    folder: FolderPath,
    segment: &SegmentRecord,
    length: BytePosition,
    producers: ProducerTable,
) -> Result<SegmentScan, StoreFault> {
    let path = folder.segment(segment.file);
    let mut scanner = SegmentScanner::new(path, segment, producers);
    let mut position = BytePosition::ZERO;
    while position < length {
        let end = position.plus(READ_STEP).min(length);
        let bytes = store.read(path, position, end).await?;
        if !scanner.feed(&bytes) {
            break;
        }
        position = end;
        tokio::task::yield_now().await;
    }
    let scan = scanner.finish();
    if let ScanStop::BadBatch(reason) = &scan.stop {
        tracing::warn!(%path, position = scan.end.position.0, reason, "scan stopped before the end of the file");
    }
    Ok(scan)
}
