//! Everything that can happen in the simulated world.

use bmq_partition::AppendReply;
use bmq_partition::machine::{Event, Published};
use bmq_proto::meta::{PartitionCommand, SegmentRecord};
use bmq_proto::{Epoch, FileId};
use bytes::Bytes;

/// One life of one partition's machine at one broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub u32);

/// A file of a partition, by the partition's number in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileKey {
    pub partition: usize,
    pub file: FileId,
}

#[derive(Debug)]
pub enum Happening {
    /// A result, or a wish, reaches a machine.
    Event(MachineId, Event),
    /// A machine's deadline.
    Tick(MachineId),
    /// A call reaches the store.
    StoreCall {
        machine: MachineId,
        partition: usize,
        call: StoreCall,
    },
    /// The bytes of a sync in flight reach the file.
    Land {
        machine: MachineId,
        key: FileKey,
    },
    /// A sync in flight ends at the store.
    SyncEnds {
        machine: MachineId,
        key: FileKey,
    },
    /// The writer at the broker learns of it.
    SyncAnswered {
        machine: MachineId,
        key: FileKey,
        answer: Result<usize, &'static str>,
    },
    /// Recovery of a file ends at the store.
    RecoveryEnds(FileKey),
    /// A command reaches the metadata service; the sender may have stopped waiting.
    Command {
        machine: MachineId,
        command: PartitionCommand,
        answered: bool,
    },
    ReadHead {
        machine: MachineId,
        partition: usize,
    },
    ListGarbage {
        machine: MachineId,
        partition: usize,
    },
    /// A broker's watch shows what is wanted.
    IntentSeen {
        node: usize,
        partition: usize,
        wanted: usize,
        version: u64,
    },
    /// A broker's watch shows a head.
    HeadSeen {
        node: usize,
        partition: usize,
        epoch: Epoch,
    },
    /// A client's watch shows a head.
    RouteSeen {
        lane: usize,
        epoch: Epoch,
        node: Option<usize>,
    },
    /// A broker compares what it has with what is wanted.
    Reconcile {
        node: usize,
        partition: usize,
    },
    /// A process that was stopped goes on, unless it was stopped again.
    NodeContinues {
        node: usize,
    },
    NodeStarts {
        node: usize,
        incarnation: u64,
    },
    /// Appends reach a broker over a stream.
    Arrive {
        lane: usize,
        stream: u64,
        node: usize,
        incarnation: u64,
        items: Vec<Item>,
    },
    /// A broker notices that a stream ended.
    StreamGone {
        stream: u64,
        node: usize,
        incarnation: u64,
    },
    /// An answer reaches a client.
    Answer {
        lane: usize,
        stream: u64,
        batch: usize,
        reply: AppendReply,
    },
    /// A client sees that its stream ended.
    StreamLost {
        lane: usize,
        stream: u64,
    },
    /// A client makes a batch, or looks again at what it can send.
    Produce {
        lane: usize,
    },
    /// A client's patience ends.
    ClientDeadline {
        lane: usize,
        stream: u64,
        batch: usize,
        attempt: u32,
    },
    /// A follower gets a step of its tail.
    Tail {
        partition: usize,
        published: Published,
    },
    /// A reader reads a closed segment from the store.
    ReadSegments,
    Chaos,
    /// The end of the faults.
    Heal,
    /// Whether everything has come to rest.
    CheckRest,
}

/// One append of a stream.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    pub batch: usize,
    pub generation: u32,
    pub epoch: Epoch,
}

#[derive(Debug)]
pub enum StoreCall {
    List,
    Fence(FileId),
    Recover(FileId),
    Scan(bmq_partition::machine::ScanRequest),
    Create { file: FileId, fate: CreateFate },
    Close { segment: SegmentRecord, index: Option<Bytes>, earlier: Vec<SegmentRecord> },
    Delete(FileId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateFate {
    Works,
    Fails,
    /// The file is there, the answer is an error.
    LeavesFile,
}
