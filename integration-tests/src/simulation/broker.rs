//! A simulated broker node, and the machines that run on it.

use std::collections::{BTreeMap, VecDeque};

use bmq_partition::machine::Machine;
use bmq_proto::broker::AckLevel;
use bmq_proto::{Epoch, Offset};

use super::happening::{Happening, MachineId};

/// A broker process, in one of its lives.
#[derive(Debug)]
pub struct Node {
    pub up: bool,
    pub incarnation: u64,
    /// Until then nothing reaches it: a process that was stopped, and will be continued.
    pub paused_until: u64,
    /// What reached it while it was stopped, in order.
    pub held: VecDeque<Happening>,
    /// What it knows of the intent, per partition: the node wanted and the version of that.
    pub wanted: Vec<(usize, u64)>,
    pub machines: Vec<Option<MachineId>>,
}

impl Node {
    pub fn new(partitions: usize) -> Self {
        Self {
            up: true,
            incarnation: 1,
            paused_until: 0,
            held: VecDeque::new(),
            wanted: vec![(usize::MAX, 0); partitions],
            machines: vec![None; partitions],
        }
    }
}

/// A machine at work.
pub struct Running {
    pub node: usize,
    pub partition: usize,
    pub machine: Machine,
    /// Once it told its bounds.
    pub epoch: Option<Epoch>,
    pub releasing: bool,
    /// When it began to recover.
    pub claimed_at: Option<u64>,
    /// When the next tick is planned.
    pub tick_at: Option<u64>,
    /// Appends not answered, by token.
    pub waiting: BTreeMap<u64, Asked>,
    /// Deletions of records not answered, by token: where the log shall start.
    pub deletions: BTreeMap<u64, Offset>,
    pub next_token: u64,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub lane: usize,
    pub stream: u64,
    pub batch: usize,
    pub ack: AckLevel,
}
