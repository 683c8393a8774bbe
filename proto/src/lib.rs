//! What the services share: names, errors, record batch bytes, service traits and their gRPC forms.
//!
//! Services never depend on each other. They meet here: a service implements a trait of this crate, and its callers
//! hold an `Arc<dyn Trait>`, which is the service itself in one process and a gRPC client across processes.

pub mod broker;
pub mod coordinator;
pub mod error;
pub mod ids;
pub mod meta;
pub mod murmur2;
pub mod record_batch;
pub mod rpc;
pub mod topic_config;

pub use error::{ErrorCode, Happened, ServiceError};
pub use ids::{
    BytePosition, ClusterId, Epoch, FileId, Incarnation, NodeId, Offset, PartitionId, Term, TopicId, TopicPartition,
};

/// Messages and gRPC services generated from `proto/bmq/v1`: the API for users.
pub mod v1 {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("bmq.v1");
}

/// Messages and gRPC services generated from `proto/bmq/internal/v1`: between our own processes and on disk.
pub mod internal {
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("bmq.internal.v1");
}
