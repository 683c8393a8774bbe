//! The faults, and the proof that each struck where it hurts.

use std::fmt;

use bmq_integration_tests::hdfs_cluster::LastBlock;

/// What is done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    DataNodeKilled,
    DataNodeStopped,
    BrokerKilled,
    BrokerStopped,
}

impl Fault {
    pub const ALL: [Fault; 4] =
        [Fault::DataNodeKilled, Fault::BrokerKilled, Fault::DataNodeStopped, Fault::BrokerStopped];

    pub fn name(self) -> &'static str {
        match self {
            Fault::DataNodeKilled => "DataNode killed (-9)",
            Fault::DataNodeStopped => "DataNode stopped",
            Fault::BrokerKilled => "broker killed (-9)",
            Fault::BrokerStopped => "broker stopped > session",
        }
    }

    pub fn hits_a_broker(self) -> bool {
        matches!(self, Fault::BrokerKilled | Fault::BrokerStopped)
    }

    pub fn kills(self) -> bool {
        matches!(self, Fault::DataNodeKilled | Fault::BrokerKilled)
    }
}

/// A file that was open for writing.
#[derive(Debug, Clone)]
pub struct OpenFile {
    pub partition: u32,
    pub owner: u32,
    /// Absolute, on HDFS.
    pub path: String,
}

/// A fault that counts.
#[derive(Debug, Clone)]
pub struct Strike {
    pub fault: Fault,
    /// The DataNode's or broker's number.
    pub victim: u32,
    /// When the victim stood still, in milliseconds since 1970.
    pub at: i64,
    /// When the victim was continued; for one that was killed, when it was started again.
    pub healed_at: i64,
    /// Partitions that were written through the victim.
    pub affected: Vec<u32>,
    /// Files with a sync in flight then.
    pub hits: Vec<(OpenFile, LastBlock)>,
}

impl fmt::Display for Strike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, block) = self.hits.first().expect("a strike without a hit does not count");
        let arrived = block.arrived_bytes.unwrap_or_default();
        write!(out, "{}: number {}, ", self.fault.name(), self.victim)?;
        write!(out, "{} of {} files in sync; ", self.hits.len(), self.affected.len())?;
        let (name, LastBlock { datanodes, known_bytes, .. }) =
            (file.path.rsplit('/').next().unwrap_or_default(), block);
        write!(
            out,
            "partition {} {name} on {datanodes:?}, {arrived} bytes written, {known_bytes} synced",
            file.partition
        )
    }
}
