//! The partition as its owner sees it: a pure state machine without IO, clock or randomness.
//!
//! ```text
//!   check the folder ─▶ claim ─▶ fence, floor, recover ─▶ scan ─▶ finish ─▶ serve ─▶ release
//! ```
//! The driver runs the actions and feeds their results back as events; the simulation does the same over models.
//!
//! Invariants while serving:
//! * `log start ≤ high watermark ≤ next offset`, and the high watermark never goes back;
//! * the batches between high watermark and next offset are held here, in order and without gaps, so that a roll can
//!   write them again;
//! * an answer `Ok` to a stored append leaves only when the high watermark has passed it;
//! * once a batch has an offset, its answer is `Ok` or `Unknown`, never `NotApplied`;
//! * at most one command that changes the head is on its way.

mod claim;
mod close;
mod command_lane;
mod compaction;
mod event;
mod garbage;
mod judge;
mod log_start;
mod pending;
mod roll;
mod serve;
mod stop;
mod timer;

pub use event::{
    Action, Damage, Event, IndexBytes, Now, OpenScan, Published, PublishedBatch, ScanReport, ScanRequest, ScanStop,
    StopReason, StoreFault,
};

pub use roll::RollCause;

use bmq_common::clock::Monotonic;
use bmq_proto::meta::{Owner, PartitionCommandKind, PartitionView};
use bmq_proto::{ClusterId, FileId, TopicPartition};
use bmq_storage::ProducerSnapshot;

use crate::append::{Append, Lane, not_owner};
use crate::config::PartitionConfig;
use crate::gate::Gate;
use claim::Recovering;
use command_lane::{CommandLane, Outcome};
use serve::Serving;
use timer::Delayed;

/// Who the machine is and how it behaves.
#[derive(Debug, Clone)]
pub struct MachineSetup {
    pub cluster: ClusterId,
    pub partition: TopicPartition,
    pub me: Owner,
    pub config: PartitionConfig,
    /// Random; nonces and file names are derived from it, so no two machines may share it.
    pub seed: u64,
}

/// One partition at one node, from its claim to its end.
#[derive(Debug)]
pub struct Machine {
    setup: MachineSetup,
    phase: Phase,
    commands: CommandLane,
    nonces: Nonces,
    /// Actions to be tried again later.
    delayed: Vec<Delayed>,
    gate: Gate<Lane>,
    /// A release was asked for, with this long to close what is sealed.
    release: Option<std::time::Duration>,
    out: Vec<Action>,
}

#[derive(Debug)]
enum Phase {
    New,
    /// Is metadata older than the files? The newest file, once the folder is listed.
    Checking {
        newest: Option<FileId>,
    },
    Claiming,
    Recovering(Box<Recovering>),
    Serving(Box<Serving>),
    /// Damage was found: no writes until an operator has looked at it.
    Refusing(Damage),
    Stopped,
}

impl Machine {
    pub fn new(setup: MachineSetup) -> Self {
        let nonces = Nonces(setup.seed);
        Self {
            setup,
            phase: Phase::New,
            commands: CommandLane::default(),
            nonces,
            delayed: Vec::new(),
            gate: Gate::default(),
            release: None,
            out: Vec::new(),
        }
    }

    /// Takes one event and returns what is to be done, in order.
    pub fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        match event {
            Event::Start => self.begin_check(),
            Event::CommandDone { nonce, result } => self.finish_command(nonce, result, now),
            Event::HeadRead(result) => self.finish_head_read(result, now),
            Event::Listed(result) => self.finish_listing(result, now),
            Event::Fenced { file, result } => self.finish_fence(file, result, now),
            Event::Recovered { file, result } => self.finish_recover(file, result, now),
            Event::Scanned(result) => self.finish_scan(result, now),
            Event::Created { file, result } => self.finish_create(file, result, now),
            Event::Progress { file, progress } => self.take_progress(file, &progress, now),
            Event::FileClosed { file, result } => self.finish_close(file, result, now),
            Event::Discarded { file, deleted } => self.finish_discard(file, deleted, now),
            Event::Compacted(report) => self.finish_compaction(report, now),
            Event::GarbageListed(result) => self.finish_garbage_listing(result, now),
            Event::Appends(appends) => self.take_appends(appends, now),
            Event::RollWanted => self.take_roll_wish(now),
            Event::DeleteRecords { token, before } => self.take_delete_records(token, before),
            Event::Reconfigure(config) => self.setup.config = *config,
            Event::StreamGone { stream } => self.gate.forget(|lane| lane.stream == stream),
            Event::Release { close_wait } => self.begin_release(close_wait, now),
            Event::Tick => {}
        }
        self.run_due_timers(now);
        self.commands.pump(self.setup.partition, &mut self.nonces, now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    /// The producers with every batch below the high watermark; `None` unless it is serving.
    pub fn producers(&self) -> Option<ProducerSnapshot> {
        match &self.phase {
            Phase::Serving(serving) => Some(serving.snapshot()),
            _ => None,
        }
    }

    /// When the machine wants a `Tick` at the latest, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Monotonic> {
        let delayed = self.delayed.iter().map(|delayed| delayed.at).min();
        let serving = match &self.phase {
            Phase::Serving(serving) => serving.next_deadline(&self.setup.config),
            Phase::Recovering(recovering) => recovering.next_deadline(),
            _ => None,
        };
        [delayed, serving, self.commands.retry_at()].into_iter().flatten().min()
    }

    /// Whether appends are taken.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, Phase::Serving(_)) && self.release.is_none()
    }

    /// Whether damage was found that only an operator can accept.
    pub fn is_refusing(&self) -> bool {
        matches!(self.phase, Phase::Refusing(_))
    }

    /// Bytes of batches taken in and not durable yet; never above the configured buffer.
    pub fn pending_bytes(&self) -> usize {
        match &self.phase {
            Phase::Serving(serving) => serving.pending.bytes(),
            _ => 0,
        }
    }

    /// Whether nothing will happen any more.
    pub fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    fn finish_command(&mut self, nonce: u64, result: Result<PartitionView, bmq_proto::ServiceError>, now: Now) {
        match self.commands.finish(nonce, result, now) {
            Outcome::Pending => {}
            Outcome::Applied(kind, view) => self.take_applied(kind, view, now),
            Outcome::Lost(error) => self.stop(StopReason::Superseded(error)),
            Outcome::Refused(kind, error) => {
                self.stop(StopReason::Refused { command: kind.name(), error });
            }
        }
    }

    fn take_applied(&mut self, kind: PartitionCommandKind, view: PartitionView, now: Now) {
        match kind {
            PartitionCommandKind::Claim { .. } => self.finish_claim(view, now),
            PartitionCommandKind::RecordFloor { file, floor, .. } => self.finish_record_floor(file, floor),
            PartitionCommandKind::FinishRecovery { .. } => self.finish_recovery(view, now),
            PartitionCommandKind::OpenSegment { file, .. } => self.finish_open_segment(file, &view, now),
            PartitionCommandKind::SealSegment { .. } => self.finish_seal(now),
            PartitionCommandKind::CloseSegment { base_offset, file, max_timestamp_ms, .. } => {
                self.finish_close_command(base_offset, file, max_timestamp_ms);
            }
            PartitionCommandKind::MoveLogStart { .. } => self.finish_move_log_start(&view, now),
            PartitionCommandKind::ReplaceSegments { .. } => self.finish_replace(view, now),
            PartitionCommandKind::Release { .. } => self.stop(StopReason::Released),
            PartitionCommandKind::Checkpoint { .. } | PartitionCommandKind::ForgetGarbage { .. } => {}
        }
    }

    fn take_appends(&mut self, appends: Vec<Append>, now: Now) {
        let refusal = match &mut self.phase {
            Phase::Serving(serving) if self.release.is_none() => {
                serving.append(appends, &mut self.gate, &self.setup.config, now, &mut self.out);
                return self.open_if_needed(now);
            }
            Phase::Serving(_) => not_owner("the partition is moving to another broker"),
            Phase::Refusing(damage) => damage.refusal(),
            Phase::Stopped => not_owner("this broker gave the partition up"),
            _ => not_owner("the partition is being recovered, try again soon"),
        };
        // The refusals keep their place in the lanes' order: what follows them may come when the partition serves.
        for append in appends {
            self.gate.refuse(append.lane, append.generation, now.monotonic);
            self.out.push(Action::Reply { token: append.token, reply: Err(refusal.clone()) });
        }
    }
}

/// Numbers that look random and never repeat, derived from one random seed (splitmix64).
#[derive(Debug)]
struct Nonces(u64);

impl Nonces {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
