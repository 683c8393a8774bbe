//! The Rust SDK of bmq: a producer, a consumer and an admin client over the public gRPC API.
//!
//! ```no_run
//! # async fn example() -> Result<(), bmq_client::Error> {
//! use bmq_client::{Client, ProducerConfig, Record};
//!
//! let client = Client::connect("127.0.0.1:9640").await?;
//! let producer = client.producer(ProducerConfig::default())?;
//! let delivery = producer.send("orders", Record::value("a value").with_key("a key")).await?;
//! println!("written at offset {}", delivery.await?.offset);
//! # Ok(())
//! # }
//! ```
//!
//! Every [`Error`] says whether the same request may succeed later, and whether it may have been applied.

mod admin;
mod client;
mod consumer;
mod error;
mod producer;
mod record;

#[cfg(test)]
mod testing;

pub use admin::{Admin, ClusterDescription, GroupDescription, Seek, SeekTo, TopicChanges, TopicDescription};
pub use client::Client;
pub use consumer::{Bounds, Consumer, ConsumerConfig, StartAt, Subscription};
pub use error::Error;
pub use producer::{Ack, Compression, Delivery, Producer, ProducerConfig, RecordMetadata};
pub use record::{ConsumerRecord, Header, Record};

/// What went wrong: the names are listed in `docs/ERRORS.md`.
pub use bmq_proto::ErrorCode;
/// Answers of the admin client.
pub use bmq_proto::v1::{
    GroupListing, GroupMember, GroupOffsetChange, GroupPartition, Node, PartitionBounds, PartitionInfo, Topic,
};
