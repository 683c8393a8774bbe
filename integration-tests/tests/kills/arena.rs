//! A cluster under load, and what can be done to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bmq_common::{Clock, SystemClock};
use bmq_integration_tests::ack_journal::Entry;
use bmq_integration_tests::cluster::{Cluster, ROOT, runtime, wait_for};
use bmq_integration_tests::hdfs_cluster::LastBlock;
use bmq_integration_tests::load::LoadPlan;
use bmq_integration_tests::meta_view::MetaView;
use bmq_integration_tests::process::Process;
use bmq_proto::meta::{SessionId, TopicRecord};
use bmq_proto::{ClusterId, NodeId};

use crate::load_process::LoadProcess;
use crate::strike::{Fault, OpenFile, Strike};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long to look for a sync in flight while the victim stands still: far below the deadline of a sync, so that the
/// files are still in use.
const LOOKING: Duration = Duration::from_millis(200);
const TRIES: usize = 50;

pub struct Arena<'a> {
    cluster: &'a mut Cluster,
    view: MetaView,
    id: ClusterId,
    topic: TopicRecord,
    load: LoadProcess,
}

/// Who stands still, and why.
struct Frozen {
    victim: u32,
    process: Process,
    at: i64,
    affected: Vec<u32>,
    hits: Vec<(OpenFile, LastBlock)>,
}

pub fn view(cluster: &Cluster) -> Result<MetaView> {
    runtime().block_on(MetaView::connect(cluster.etcd.endpoint()))
}

impl<'a> Arena<'a> {
    /// Starts the load, and returns when every partition gives acknowledgements.
    pub fn enter(cluster: &'a mut Cluster, topic: &str) -> Result<Self> {
        let view = view(cluster)?;
        let id = runtime().block_on(view.cluster())?;
        let topic = runtime().block_on(view.topic(topic))?.context("the topic has a record")?;
        let load = LoadProcess::start(&LoadPlan {
            servers: cluster.bmq.servers(),
            topic: topic.name.clone(),
            partitions: topic.partitions,
            idempotent_producers: 4,
            other_producers: 2,
            pause_ms: 50,
            journal: cluster.folder().join("journal"),
        })?;
        let mut arena = Self { cluster, view, id, topic, load };
        arena.wait_for_acks_since(now_ms())?;
        Ok(arena)
    }

    /// One fault: strikes, waits until every partition goes on, heals, waits for that too.
    pub fn strike(&mut self, fault: Fault, round: usize) -> Result<Strike> {
        let frozen = self.freeze(fault, round)?;
        let session = self.broker_session(frozen.victim)?;
        if fault.kills() {
            frozen.process.kill()?;
        }
        if fault == Fault::BrokerStopped && round % 2 == 1 {
            // Woken while others take over, it acknowledges as long as nothing stops it.
            self.wait_for_the_end_of(session, frozen.victim)?;
            frozen.process.resume()?;
        } else {
            self.wait_for_acks_since(frozen.at)?;
        }
        let healed_at = now_ms();
        self.heal(fault, &frozen, session)?;
        self.wait_for_acks_since(now_ms())?;
        let Frozen { victim, at, affected, hits, .. } = frozen;
        let strike = Strike { fault, victim, at, healed_at, affected, hits };
        println!("{strike}");
        Ok(strike)
    }

    /// Stops the load, and returns what it was told.
    pub fn leave(self) -> Result<Vec<Entry>> {
        self.load.finish()
    }

    /// Stops a victim with SIGSTOP at a moment when a sync is in flight; lets it go on and tries again otherwise.
    fn freeze(&mut self, fault: Fault, round: usize) -> Result<Frozen> {
        for number in 0..TRIES {
            let files = self.open_files()?;
            let Some((victim, process)) = self.choose(fault, &files, round, number)? else { continue };
            process.pause()?;
            let at = now_ms();
            let (affected, hits) = self.look(fault, victim, &files);
            if !hits.is_empty() {
                return Ok(Frozen { victim, process, at, affected, hits });
            }
            process.resume()?;
        }
        bail!("no sync was in flight in {TRIES} tries of a {}", fault.name());
    }

    /// The broker that owns most, or a DataNode of some file, at another place of its pipeline in each round.
    fn choose(&self, fault: Fault, files: &[OpenFile], round: usize, number: usize) -> Result<Option<(u32, Process)>> {
        if fault.hits_a_broker() {
            let owned = |broker: &u32| files.iter().filter(|file| file.owner == *broker).count();
            let Some(broker) = files.iter().map(|file| file.owner).max_by_key(owned) else { return Ok(None) };
            return Ok(Some((broker, self.cluster.bmq.broker(broker)?.process)));
        }
        let Some(file) = files.get((round + number) % files.len().max(1)) else { return Ok(None) };
        let datanodes = self.last_block(file).map(|block| block.datanodes).unwrap_or_default();
        let Some(&datanode) = datanodes.get(round % datanodes.len().max(1)) else { return Ok(None) };
        Ok(Some((u32::try_from(datanode)?, self.cluster.hdfs.datanode_process(datanode)?)))
    }

    /// Which partitions write through the victim, and which of their files have a sync in flight.
    fn look(&self, fault: Fault, victim: u32, files: &[OpenFile]) -> (Vec<u32>, Vec<(OpenFile, LastBlock)>) {
        let through_victim = |file: &OpenFile, block: &LastBlock| match fault.hits_a_broker() {
            true => file.owner == victim,
            false => block.datanodes.contains(&(victim as usize)),
        };
        let deadline = Instant::now() + LOOKING;
        loop {
            // A file that was rolled in the meantime may be gone.
            let blocks = files.iter().filter_map(|file| Some((file.clone(), self.last_block(file).ok()?)));
            let written: Vec<_> = blocks.filter(|(file, block)| through_victim(file, block)).collect();
            let affected = written.iter().map(|(file, _)| file.partition).collect();
            let hits: Vec<_> = written.into_iter().filter(|(_, block)| block.has_sync_in_flight()).collect();
            if !hits.is_empty() || Instant::now() > deadline {
                return (affected, hits);
            }
        }
    }

    fn heal(&mut self, fault: Fault, frozen: &Frozen, old_session: Option<SessionId>) -> Result<()> {
        match fault {
            Fault::DataNodeKilled => return self.cluster.hdfs.start_datanode(frozen.victim as usize),
            Fault::DataNodeStopped => return frozen.process.resume(),
            Fault::BrokerKilled => self.cluster.bmq.start_broker(frozen.victim)?,
            Fault::BrokerStopped => frozen.process.resume()?,
        }
        wait_for("the broker to have a session again", PATIENCE, || {
            let session = self.broker_session(frozen.victim)?;
            Ok(session.filter(|_| session != old_session))
        })?;
        Ok(())
    }

    fn broker_session(&self, broker: u32) -> Result<Option<SessionId>> {
        runtime().block_on(self.view.broker_session(NodeId(broker)))
    }

    fn wait_for_the_end_of(&self, session: Option<SessionId>, broker: u32) -> Result<()> {
        let has_ended = || Ok((self.broker_session(broker)? != session).then_some(()));
        wait_for("the broker's session to end", PATIENCE, has_ended)
    }

    fn open_files(&self) -> Result<Vec<OpenFile>> {
        let mut files = Vec::new();
        for partition in self.topic.partition_ids() {
            let head = runtime().block_on(self.view.head(partition))?;
            let (Some(file), Some(owner)) = (head.open, head.owner) else { continue };
            let path = format!("{ROOT}/{}", MetaView::data_path(self.id, partition, file));
            files.push(OpenFile { partition: partition.partition.0, owner: owner.node.0, path });
        }
        Ok(files)
    }

    fn last_block(&self, file: &OpenFile) -> Result<LastBlock> {
        self.cluster.hdfs.last_block(&file.path)
    }

    /// Waits until every partition has acknowledged something that was sent after this moment.
    fn wait_for_acks_since(&mut self, at: i64) -> Result<()> {
        let mut silent = Vec::new();
        let heard = wait_for("acknowledgements", PATIENCE, || {
            silent = self.load.silent_since(at)?;
            Ok(silent.is_empty().then_some(()))
        });
        heard.with_context(|| format!("partitions {silent:?} are silent"))
    }
}

fn now_ms() -> i64 {
    SystemClock.wall().0
}
