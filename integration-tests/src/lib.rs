//! What the tests of whole clusters share: real daemons, and what is wanted to know of them.

pub mod ack_journal;
pub mod bmq_binary;
pub mod bmq_cluster;
pub mod cluster;
pub mod etcd_cluster;
pub mod hdfs_cluster;
pub mod history;
pub mod idempotent;
pub mod in_process;
pub mod load;
pub mod log_events;
pub mod meta_view;
pub mod one_partition;
pub mod payload;
pub mod process;
pub mod read_back;
pub mod simulation;
pub mod standalone;
