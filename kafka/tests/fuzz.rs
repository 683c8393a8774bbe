//! Hostile bytes: requests, frames and record batches are read or refused, without a panic, and within bounds of memory.
//!
//! A bounded run of a fuzzer on the stable compiler: it changes a kept corpus at random and so gets deeper than random
//! bytes would. `FUZZ_ITERATIONS` (20,000 unless set) says how long, `FUZZ_SEED` where it begins. An input that makes a
//! test fail is printed; it belongs into `corpus/requests.txt` then.
//!
//! The allocator counts what each thread takes, so the tests do not disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::env;
use std::str::FromStr;

use bmq_kafka::{FrameDecoder, parse_request};
use bmq_proto::record_batch::{BatchBuilder, BatchLimits, Codec, RecordLimits};
use bmq_proto::record_batch::{records, split_batches, validate_produced};
use bytes::{Bytes, BytesMut};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of the callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `run` held at once at most, beyond what was held before it.
fn peak_of<T>(run: impl FnOnce() -> T) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    let result = run();
    let peak = PEAK.get() - before;
    drop(result);
    usize::try_from(peak).expect("the peak is not below its start")
}

/// Decoded, what takes a byte of the frame takes no more than this. What comes on top is the text of an error.
const BYTES_PER_BYTE: usize = 128;
const ERROR_BYTES: usize = 16 << 10;

fn check_request(frame: &[u8]) {
    let frame = Bytes::copy_from_slice(frame);
    let len = frame.len();
    let peak = peak_of(|| parse_request(frame));
    assert!(peak <= ERROR_BYTES + BYTES_PER_BYTE * len, "{peak} bytes for a frame of {len}");
}

/// Prints the input while a failure of its check unwinds.
struct Input<'a>(&'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input: {}", self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let decode = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    };
    let lines = include_str!("corpus/requests.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| decode(line.rsplit(' ').next().expect("a line has an end"))).collect()
}

fn setting<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// Checks as many changed inputs as the settings say.
fn fuzz(inputs: &[Vec<u8>], check: impl Fn(&[u8])) {
    let mut rng = SmallRng::seed_from_u64(setting("FUZZ_SEED", 1));
    for _ in 0..setting("FUZZ_ITERATIONS", 20_000_u32) {
        let mut bytes = inputs.choose(&mut rng).expect("there are inputs").clone();
        for _ in 0..rng.random_range(1..=4) {
            change(&mut bytes, inputs, &mut rng);
        }
        let _input = Input(&bytes);
        check(&bytes);
    }
}

/// Numbers that readers stumble over, as bytes: long and negative lengths, plain and compact.
const LIES: [&[u8]; 12] = [
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0x10, 0x00, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0x7f],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
];

fn change(bytes: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut SmallRng) {
    let at = rng.random_range(0..=bytes.len());
    let end = rng.random_range(at..=bytes.len());
    match rng.random_range(0..8) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.extend_from_within(at..end),
        3 => {
            let other = inputs.choose(rng).expect("there are inputs");
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
        4 => bytes.insert(at, rng.random()),
        5 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        6 if at < bytes.len() => bytes[at] = rng.random(),
        _ => overwrite(bytes, at, LIES.choose(rng).expect("there are lies")),
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    let len = with.len().min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&with[..len]);
}

#[test]
fn changed_requests() {
    fuzz(&corpus(), check_request);
}

#[test]
fn requests_with_a_lie_at_each_place() {
    for frame in corpus() {
        for at in 0..frame.len() {
            for lie in LIES {
                let mut bytes = frame.clone();
                overwrite(&mut bytes, at, lie);
                let _input = Input(&bytes);
                check_request(&bytes);
            }
        }
    }
}

#[test]
fn requests_cut_at_each_place() {
    for frame in corpus() {
        check_request(&frame);
        (0..frame.len()).for_each(|len| check_request(&frame[..len]));
    }
}

/// The largest request that is read: nothing but elements, each as small as it can be.
#[test]
fn requests_of_many_small_elements() {
    let count: i32 = 1 << 18;
    // Metadata version 0: a count, and names of no length.
    let metadata = [&[0, 3, 0, 0, 0, 0, 0, 7, 0xff, 0xff][..], &count.to_be_bytes(), &[0; 2 << 18]].concat();
    // OffsetFetch version 8: a compact count, and groups without name, without topics, and without tagged fields.
    let groups = [&[0, 9, 0, 8, 0, 0, 0, 7, 0xff, 0xff, 0, 0x81, 0x80, 0x10][..], &[1, 1, 0].repeat(1 << 18)].concat();
    let offset_fetch = [&groups[..], &[0, 0]].concat();
    for frame in [metadata, offset_fetch] {
        let frame = Bytes::from(frame);
        let peak = peak_of(|| parse_request(frame.clone()).expect("as many elements are allowed"));
        assert!(peak <= BYTES_PER_BYTE * frame.len(), "{peak} bytes for a frame of {}", frame.len());
        assert!(peak <= 50 << 20, "{peak} bytes");
    }
}

#[test]
fn changed_streams_of_frames() {
    let with_length = |frame: Vec<u8>| [&(frame.len() as i32).to_be_bytes(), &frame[..]].concat();
    let streams: Vec<Vec<u8>> =
        corpus().into_iter().map(with_length).collect::<Vec<_>>().chunks(4).map(<[_]>::concat).collect();
    let decoder = FrameDecoder::new(64 << 10);
    fuzz(&streams, |stream| {
        let mut buffer = BytesMut::new();
        let mut taken = 0;
        for piece in stream.chunks(100) {
            let room = decoder.room_wanted(&buffer);
            assert!(room <= (16 << 10).max(buffer.len()), "{room} bytes of room for {}", buffer.len());
            buffer.extend_from_slice(piece);
            match decoder.decode(&mut buffer) {
                Ok(frame) => taken += frame.map_or(0, |frame| frame.len() + 4),
                Err(_) => return,
            }
            assert!(taken + buffer.len() <= stream.len());
        }
    });
}

#[test]
fn changed_record_batches() {
    let batch = |codec| {
        let mut builder = BatchBuilder::new(codec, 1_700_000_000_000);
        for at in 0..20_u8 {
            let headers = [(&b"trace"[..], Some(&b"1"[..])), (b"trace", None)];
            builder.append(1_700_000_000_000 + i64::from(at), Some(&[at]), Some(&[at; 40]), &headers).unwrap();
        }
        builder.build().to_vec()
    };
    let mut batches: Vec<Vec<u8>> = Codec::ALL.into_iter().map(batch).collect();
    batches.push(batches.concat());
    let limits = RecordLimits { max_decompressed_bytes: 1 << 20, max_headers: 100 };
    fuzz(&batches, |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        // Which batches are accepted is not the question here.
        let _ = validate_produced(&bytes, &BatchLimits { max_batch_bytes: 1 << 20 });
        for (header, batch) in split_batches(&bytes).flatten() {
            assert_eq!(header.total_len(), batch.len());
            if let Ok(records) = records(&batch, &limits) {
                assert!(records.count() <= header.record_count() as usize + 1);
            }
        }
    });
}
