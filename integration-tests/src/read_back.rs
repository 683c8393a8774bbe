//! Reads a topic's records in two ways that have nothing in common: as a consumer, and from the raw files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use bmq_client::{Client, StartAt, Subscription};
use futures::StreamExt;
use serde::Deserialize;

use crate::cluster::{Cluster, ROOT};
use crate::history::ReadRecord;

/// Everything a consumer is given from the beginning to what is the end now, ordered by partition.
pub async fn by_consumer(server: &str, topic: &str, partitions: u32) -> Result<Vec<ReadRecord>> {
    let subscriptions = (0..partitions).map(|partition| Subscription::from((topic, partition, StartAt::Earliest)));
    let mut records = consume(server, subscriptions.collect()).await?;
    // Stable: within a partition the order of reading stays.
    records.sort_by_key(|record| record.partition);
    Ok(records)
}

/// As [`by_consumer`], of one partition.
pub async fn partition_by_consumer(server: &str, topic: &str, partition: u32) -> Result<Vec<ReadRecord>> {
    consume(server, vec![Subscription::from((topic, partition, StartAt::Earliest))]).await
}

async fn consume(server: &str, subscriptions: Vec<Subscription>) -> Result<Vec<ReadRecord>> {
    let client = Client::connect(server).await?;
    let mut consumer = client.consume(subscriptions).await?.until_end().await?;
    let mut records = Vec::new();
    while let Some(record) = consumer.next().await {
        let record = record?;
        let payload = record.value.context("a record without a value")?.to_vec();
        records.push(ReadRecord { partition: record.partition, offset: record.offset, payload });
    }
    Ok(records)
}

/// Everything that `raw_reader/raw_reader.py` finds in etcd and HDFS, ordered by partition.
pub fn by_raw_reader(cluster: &Cluster, topic: &str) -> Result<Vec<ReadRecord>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("raw_reader/raw_reader.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(["--root", ROOT, "--etcd", cluster.etcd.endpoint()]);
    let output = command.args(["--namenode", cluster.hdfs.namenode_http(), topic]).output()?;
    if !output.status.success() {
        bail!("the raw reader failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(raw_record).collect()
}

/// A line of the raw reader.
#[derive(Deserialize)]
struct RawRecord {
    partition: u32,
    offset: u64,
    value: Option<String>,
}

fn raw_record(line: &str) -> Result<ReadRecord> {
    let RawRecord { partition, offset, value } = serde_json::from_str(line)?;
    let payload = from_hex(&value.context("a record without a value")?);
    Ok(ReadRecord { partition, offset, payload: payload.context("a value that is not hex")? })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8);
    text.as_bytes().chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex() {
        assert_eq!(from_hex("00ff1a"), Some(vec![0, 255, 26]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
