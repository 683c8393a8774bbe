//! What a proxy counts.

use bmq_common::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Where the batches of an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Ring,
    Segment,
    Owner,
}

/// The proxy's metrics.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    forwarded_batches: Counter,
    forwarded_bytes: Counter,
    retried_batches: Counter,
    failed_batches: Counter,
    open_links: Gauge,
    produce_streams: Gauge,
    fetch_streams: Gauge,
    ring_reads: Counter,
    ring_read_bytes: Counter,
    segment_reads: Counter,
    segment_read_bytes: Counter,
    chunk_hits: Counter,
    chunk_loads: Counter,
    chunk_load_bytes: Counter,
    damaged_chunks: Counter,
    owner_reads: Counter,
    owner_read_bytes: Counter,
    followed_partitions: Gauge,
    ring_bytes: Gauge,
    parked_readers: Gauge,
    head_reads: Counter,
    watch_restarts: Counter,
}

impl ProxyMetrics {
    pub fn register(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.register_counter(name, help);
        let gauge = |name, help| metrics.register_gauge(name, help);
        Self {
            forwarded_batches: counter("bmq_proxy_forwarded_batches", "Batches sent to owners, retries included"),
            forwarded_bytes: counter("bmq_proxy_forwarded_bytes", "Bytes of batches sent to owners, retries included"),
            retried_batches: counter("bmq_proxy_retried_batches", "Batches sent to an owner once more"),
            failed_batches: counter("bmq_proxy_failed_batches", "Batches answered to a client with an error"),
            open_links: gauge("bmq_proxy_broker_links", "Append streams to brokers"),
            produce_streams: gauge("bmq_proxy_produce_streams", "Produce streams of clients"),
            fetch_streams: gauge("bmq_proxy_fetch_streams", "Fetch streams of clients"),
            ring_reads: counter("bmq_proxy_ring_reads", "Reads answered from a tail ring"),
            ring_read_bytes: counter("bmq_proxy_ring_read_bytes", "Bytes read from tail rings"),
            segment_reads: counter("bmq_proxy_segment_reads", "Reads answered from a closed segment"),
            segment_read_bytes: counter("bmq_proxy_segment_read_bytes", "Bytes answered from closed segments"),
            chunk_hits: counter("bmq_proxy_chunk_hits", "Chunks of closed segments that were in memory"),
            chunk_loads: counter("bmq_proxy_chunk_loads", "Chunks of closed segments read from the store"),
            chunk_load_bytes: counter("bmq_proxy_chunk_load_bytes", "Bytes of closed segments read from the store"),
            damaged_chunks: counter("bmq_proxy_damaged_chunks", "Chunks whose checksum was wrong when loaded"),
            owner_reads: counter("bmq_proxy_owner_reads", "Reads answered by a partition's owner"),
            owner_read_bytes: counter("bmq_proxy_owner_read_bytes", "Bytes read from owners"),
            followed_partitions: gauge("bmq_proxy_followed_partitions", "Partitions whose tail is followed"),
            ring_bytes: gauge("bmq_proxy_ring_held_bytes", "Bytes held in tail rings"),
            parked_readers: gauge("bmq_proxy_parked_readers", "Readers waiting for new data"),
            head_reads: counter("bmq_proxy_head_reads", "Linearizable reads of partition heads"),
            watch_restarts: counter("bmq_proxy_watch_restarts", "Times the metadata watch had to be opened again"),
        }
    }

    pub fn batches_forwarded(&self, batches: u64, bytes: u64) {
        self.forwarded_batches.inc_by(batches);
        self.forwarded_bytes.inc_by(bytes);
    }

    pub fn batch_retried(&self) {
        self.retried_batches.inc();
    }

    pub fn batch_failed(&self) {
        self.failed_batches.inc();
    }

    pub fn read_answered(&self, source: Source, bytes: usize) {
        let (reads, total) = match source {
            Source::Ring => (&self.ring_reads, &self.ring_read_bytes),
            Source::Segment => (&self.segment_reads, &self.segment_read_bytes),
            Source::Owner => (&self.owner_reads, &self.owner_read_bytes),
        };
        reads.inc();
        total.inc_by(bytes as u64);
    }

    pub fn chunk_hit(&self) {
        self.chunk_hits.inc();
    }

    pub fn chunk_loaded(&self, bytes: usize) {
        self.chunk_loads.inc();
        self.chunk_load_bytes.inc_by(bytes as u64);
    }

    pub fn chunk_damaged(&self) {
        self.damaged_chunks.inc();
    }

    pub fn head_read(&self) {
        self.head_reads.inc();
    }

    pub fn watch_restarted(&self) {
        self.watch_restarts.inc();
    }

    pub fn ring_bytes_are(&self, bytes: usize) {
        self.ring_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub fn link_open(&self) -> Level {
        Level::raise(&self.open_links)
    }

    pub fn produce_stream_open(&self) -> Level {
        Level::raise(&self.produce_streams)
    }

    pub fn fetch_stream_open(&self) -> Level {
        Level::raise(&self.fetch_streams)
    }

    pub fn partition_followed(&self) -> Level {
        Level::raise(&self.followed_partitions)
    }

    pub fn reader_parked(&self) -> Level {
        Level::raise(&self.parked_readers)
    }
}

/// One more on a gauge, until it is dropped.
#[derive(Debug)]
#[must_use = "the gauge goes down again when this is dropped"]
pub struct Level(Gauge);

impl Level {
    pub(crate) fn raise(gauge: &Gauge) -> Self {
        gauge.inc();
        Level(gauge.clone())
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        self.0.dec();
    }
}
