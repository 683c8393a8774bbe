//! Measurements against limits: load through the SDK, and in the same run the bare store doing the same syncs.
//!
//! A figure alone says little on a shared machine; the ratio to the bare store, taken right after it, says where the
//! time goes. A benchmark never fails a run: it prints.

pub mod bare_store;
pub mod http_get;
pub mod latency;
pub mod produce;
pub mod report;
pub mod sync_counters;
