//! The domain transactions as pure functions: the records that were read and a request give the changes or an error.
//!
//! No IO, no clock, no randomness: the server runs them against a store, the simulation against a map. The caller owes
//! them what every store gives: records read at one revision, and changes applied only if those records still stand.

pub mod mutant;
pub mod partition;
pub mod producer_id;
pub mod session;
pub mod term;
pub mod topic;

pub use partition::{Changes, NeededSegments, Needs, PartitionRecords, answer, apply, needs};

use bmq_proto::{ErrorCode, ServiceError};

fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Result<T, ServiceError> {
    Err(ServiceError::not_applied(code, message))
}
