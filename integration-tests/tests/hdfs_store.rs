//! The HDFS store on real daemons: the contract of every store, and each way in which HDFS or its client library would
//! lose or invent an acknowledgement if the store let it. One cluster serves the whole file, one test at a time.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

#[path = "hdfs_store/abandoned.rs"]
mod abandoned;
#[path = "hdfs_store/contract.rs"]
mod contract;
#[path = "hdfs_store/faults.rs"]
mod faults;
#[path = "hdfs_store/files.rs"]
mod files;
#[path = "hdfs_store/start.rs"]
mod start;
#[path = "hdfs_store/support.rs"]
mod support;
