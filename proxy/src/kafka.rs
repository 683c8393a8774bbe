//! The Kafka edge: unchanged Kafka clients connect here, and see the proxies as the brokers of a cluster.
//!
//! ```text
//!   listener ─▶ connection ─ frames ─▶ dispatch ─▶ one handler per request: `handle(context, request) → response`
//!                  ▲                                   │
//!                  └─────────── in order ◀─────────────┘
//! ```
//! Bytes are read and made in the crate `bmq_kafka`; here is what they mean. Each request has a file of its own.

mod answers;
pub mod brokers;
mod connection;
pub mod context;
mod dispatch;
mod epochs;
pub mod fetch_session;
mod gather;
pub mod listener;
pub mod metrics;
pub mod places;
pub mod readers;
mod worker;

mod api_versions;
mod assignment;
mod authorized_operations;
mod consumer_group_describe;
mod consumer_group_heartbeat;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod member_wait;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod refusal;
mod sync_group;
mod topic_configs;

pub use context::{ClientConnection, RequestContext, Shared};
pub use listener::KafkaListener;

/// Kafka's numbers of the kinds of things that have settings.
const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

/// Topics of one request that are dealt with together.
const TOPICS_AT_ONCE: usize = 16;
/// Groups of one request that are dealt with together.
const GROUPS_AT_ONCE: usize = 16;
