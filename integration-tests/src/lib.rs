//! What the tests of whole clusters share: real daemons, and what is wanted to know of them.

pub mod hdfs_cluster;
pub mod one_partition;
