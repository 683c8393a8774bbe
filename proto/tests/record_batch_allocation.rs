//! Reading hostile batches allocates no more than the limits say.
//!
//! In a file of its own because it counts every allocation of the process; it holds one test, so that nothing else
//! allocates meanwhile. Memory that zstd takes in C is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bmq_proto::record_batch::{BatchBuilder, Codec, HEADER_LEN, LENGTH_PREFIX, RecordLimits, records};
use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of the callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: RecordLimits = RecordLimits { max_decompressed_bytes: 64 << 10, max_headers: 100 };

/// The most memory that was held at once, beyond what was held before, while all records of `batch` were read.
fn peak_of_reading(batch: &Bytes) -> usize {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    if let Ok(records) = records(batch, &LIMITS) {
        records.for_each(drop);
    }
    PEAK.load(Relaxed) - before
}

/// A batch with these bytes for records; nothing but its length and codec is in order.
fn batch_of(codec: Codec, records: &[u8], record_count: u32) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, 0);
    builder.append(0, None, None, &[]).expect("the record is small");
    let mut batch = builder.build()[..HEADER_LEN].to_vec();
    batch.extend_from_slice(records);
    let length = (batch.len() - LENGTH_PREFIX) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] = codec as u8;
    batch[23..27].copy_from_slice(&record_count.saturating_sub(1).to_be_bytes());
    batch[57..61].copy_from_slice(&record_count.to_be_bytes());
    batch.into()
}

fn lz4(plain: &[u8], block_size: BlockSize) -> Vec<u8> {
    let info = FrameInfo::new().block_size(block_size).block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(plain).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn reading_stays_within_the_limits() {
    // What a reader may hold of one record, whatever it claims; the rest is the text of an error.
    let one_record = LIMITS.max_headers * size_of::<(Bytes, Option<Bytes>)>() + (4 << 10);

    // A record that claims 2³¹ headers, or more than are allowed, in front of enough bytes for them.
    for claimed in [vec![0xfe, 0xff, 0xff, 0xff, 0x0f], vec![0x80, 0x80, 0x01]] {
        let mut body = vec![0, 0, 0, 1, 1];
        body.extend(claimed);
        body.resize(40_000, 0);
        let mut record = vec![0x80, 0xf1, 0x04];
        record.extend(body);
        let peak = peak_of_reading(&batch_of(Codec::None, &record, 1));
        assert!(peak <= one_record, "{peak} bytes");
    }

    // A batch that claims 2³¹ records.
    let peak = peak_of_reading(&batch_of(Codec::None, &[0; 100], i32::MAX as u32));
    assert!(peak <= one_record, "{peak} bytes");

    // Small batches that grow a thousandfold. A vector that grows holds its old and its new buffer for a moment.
    let zeros = vec![0; 64 << 20];
    let decompressed = 3 * LIMITS.max_decompressed_bytes;
    for (block_size, decoder) in [(BlockSize::Max64KB, 1 << 20), (BlockSize::Max4MB, 13 << 20)] {
        let peak = peak_of_reading(&batch_of(Codec::Lz4, &lz4(&zeros, block_size), 1));
        assert!(peak <= one_record + decompressed + decoder, "{peak} bytes");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&zeros).expect("memory takes it");
    let gzip = gzip.finish().expect("memory takes it");
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros).expect("memory takes it");
    for (codec, compressed) in [(Codec::Gzip, gzip), (Codec::Snappy, snappy)] {
        let peak = peak_of_reading(&batch_of(codec, &compressed, 1));
        assert!(peak <= one_record + decompressed + (100 << 10), "{codec}: {peak} bytes");
    }
    let compressed = zstd::encode_all(&zeros[..], 1).expect("memory takes it");
    let peak = peak_of_reading(&batch_of(Codec::Zstd, &compressed, 1));
    assert!(peak <= one_record + decompressed, "{peak} bytes");
}
