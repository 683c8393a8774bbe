//! Transactions whose outcome is unclear: each call ends with what is certain, and nothing applies twice.

use bmq_proto::meta::{
    CreateTopic, Intent, MetaService, NodeKind, Owner, PartitionCommand, PartitionCommandKind, PartitionView,
};
use bmq_proto::{ErrorCode, Happened, Incarnation, NodeId, Offset, ServiceError, Term};

use bmq_common::Random;

use super::{Broker, Cluster, end, file};
use crate::store::faulty::Fault;
use crate::transition::{self, PartitionRecords};

/// A broker's life in commands, and what the pure functions make of them.
async fn live(cluster: &Cluster, faults: &[Fault]) -> PartitionView {
    let mut broker = Broker::claim(cluster, 1).await;
    let epoch = broker.epoch;
    let finish = PartitionCommandKind::FinishRecovery { epoch, found: None, start: Offset(0) };
    let close =
        PartitionCommandKind::CloseSegment { epoch, base_offset: Offset(0), file: file(1, 1), max_timestamp_ms: None };
    let seal = PartitionCommandKind::SealSegment { epoch, file: file(1, 2), end: end(9) };
    let kinds = [
        finish,
        broker.opening(1, None),
        broker.opening(2, Some(end(5))),
        close,
        seal,
        PartitionCommandKind::Release { epoch },
    ];
    for kind in kinds {
        cluster.faults.inject(faults.iter().copied());
        broker.send(kind).await.unwrap();
    }
    cluster.faults.inject(faults.iter().copied());
    Broker::claim(cluster, 1).await.claimed
}

#[tokio::test(start_paused = true)]
async fn each_fault_of_each_command_is_resolved() {
    let expected = live(&Cluster::start().await, &[]).await;
    assert_eq!(expected.segments.len(), 2);
    for first in Fault::ALL {
        for second in Fault::ALL {
            let cluster = Cluster::start().await;
            let found = live(&cluster, &[first, second]).await;
            let mut head = found.head.clone();
            // A claim is made anew when a late one has overtaken it; nothing else may happen twice.
            assert!(head.epoch >= expected.head.epoch, "{first:?}, {second:?}");
            head.epoch = expected.head.epoch;
            head.version = expected.head.version;
            head.last_nonce = expected.head.last_nonce;
            assert_eq!(head, expected.head, "{first:?}, {second:?}");
            assert_eq!(found.segments, expected.segments, "{first:?}, {second:?}");
            assert_eq!(cluster.meta.partition(cluster.partition).await.unwrap(), found);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn topics_terms_and_intents_survive_each_fault() {
    for fault in Fault::ALL {
        let cluster = Cluster::start().await;
        let meta = &cluster.meta;
        let inject = || cluster.faults.inject([fault]);
        inject();
        let request = CreateTopic { name: "t".to_owned(), partitions: 2, config: Default::default() };
        let topic = meta.create_topic(request).await.unwrap();
        assert_eq!(meta.topic("t").await.unwrap(), Some(topic.clone()));
        meta.close_session(cluster.controller).await.unwrap();
        inject();
        let session = cluster.session(NodeKind::Controller, 1, 2).await;
        meta.keep_alive(session).await.unwrap();
        inject();
        let term = meta.acquire_term(session).await.unwrap();
        assert_eq!(term, Term(2), "{fault:?}");
        inject();
        let intents = topic.partition_ids().map(|partition| (partition, Some(NodeId(3)))).collect();
        meta.set_intents(term, intents).await.unwrap();
        inject();
        let first = meta.allocate_producer_ids(10).await.unwrap();
        assert!(meta.allocate_producer_ids(10).await.unwrap() >= first + 10);
        inject();
        meta.delete_topic("t").await.unwrap();
        inject();
        while !meta.purge_topic(term, topic.id).await.unwrap() {
            inject();
        }
        assert_eq!(meta.topic("t").await.unwrap(), None, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unclear_command_that_a_claim_overtook_is_not_called_certain() {
    let cluster = Cluster::start().await;
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    // Every try is lost, so that the first call can only say that it does not know.
    cluster.faults.inject([Fault::UnknownNotApplied; 200]);
    let command = broker.command(broker.opening(1, None));
    let error = cluster.meta.command(command.clone()).await.unwrap_err();
    assert_eq!(error.happened, Happened::Unknown, "{error}");

    let cluster = Cluster::start().await;
    let mut broker = Broker::claim(&cluster, 1).await;
    broker.finish_recovery(None, 0).await.unwrap();
    cluster.faults.inject([Fault::UnknownApplied]);
    let command = broker.command(broker.opening(1, None));
    let first = cluster.meta.command(command);
    tokio::pin!(first);
    while cluster.faults.counts().iter().all(|count| *count == 0) {
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    let claimed = Broker::claim(&cluster, 1).await.claimed;
    assert_eq!(claimed.head.open, Some(file(1, 1)), "it was applied");
    let error = first.await.unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Fenced, Happened::Unknown), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_late_intent_does_not_undo_a_newer_one() {
    let cluster = Cluster::start().await;
    for reads in 0..20 {
        cluster.faults.inject([Fault::UnknownLate { reads }]);
        cluster.intend(2).await;
        cluster.intend(1).await;
        // Enough reads for whatever is late.
        for _ in 0..20 {
            cluster.meta.head(cluster.partition).await.unwrap();
        }
        Broker::claim(&cluster, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failing_reads_are_tried_again_until_the_deadline() {
    let cluster = Cluster::start().await;
    cluster.faults.fail_reads(3);
    cluster.meta.head(cluster.partition).await.unwrap();
    cluster.faults.fail_reads(1_000);
    let error = cluster.meta.head(cluster.partition).await.unwrap_err();
    assert_eq!((error.code, error.happened), (ErrorCode::Unavailable, Happened::NotApplied));
    assert!(error.message.contains("a read fails on purpose"), "{error}");
}

#[tokio::test]
async fn concurrent_claims_get_an_epoch_each() {
    let cluster = Cluster::start().await;
    let mut claims = Vec::new();
    for nonce in 1..=20 {
        let owner = Owner { node: NodeId(1), incarnation: Incarnation(nonce) };
        let kind = PartitionCommandKind::Claim { owner };
        claims.push(PartitionCommand { partition: cluster.partition, nonce, now_ms: 0, kind });
    }
    let answers = futures::future::join_all(claims.into_iter().map(|claim| cluster.meta.command(claim))).await;
    let mut epochs: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().head.epoch.0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (1..=20).collect::<Vec<_>>());
}

/// What the service should hold, by the pure functions alone.
#[derive(Default)]
struct Model {
    records: PartitionRecords,
}

impl Model {
    /// What an answer to `command` must be, applied if it is one.
    fn apply(&mut self, intent: Intent, command: &PartitionCommand) -> Result<(), ServiceError> {
        let changes = transition::apply(&self.records, Some(&intent), command)?;
        self.records.absorb(changes);
        Ok(())
    }
}

fn next_kind(random: &Random, broker: &Broker<'_>, records: &PartitionRecords, fresh: u64) -> PartitionCommandKind {
    let epoch = broker.epoch;
    let head = &records.head;
    let new_end = end(head.sealed_end.0 + random.below(3));
    match random.below(10) {
        0 => PartitionCommandKind::Claim { owner: Owner { node: NodeId(1), incarnation: Incarnation(1) } },
        1 | 2 => PartitionCommandKind::FinishRecovery {
            epoch,
            found: head.open.map(|file| (file, new_end)),
            start: head.open.map_or(head.sealed_end, |_| new_end.offset),
        },
        3 => PartitionCommandKind::SealSegment { epoch, file: head.open.unwrap_or(file(1, 1)), end: new_end },
        4 => {
            let segment = records.segments.values().next_back();
            let (base_offset, file) = segment.map_or((Offset(0), file(1, 1)), |it| (it.base_offset, it.file));
            PartitionCommandKind::CloseSegment { epoch, base_offset, file, max_timestamp_ms: None }
        }
        _ => {
            let seal = head.open.map(|_| new_end);
            let base_offset = seal.map_or(head.sealed_end, |end| end.offset);
            let start_position = bmq_proto::BytePosition(512);
            PartitionCommandKind::OpenSegment { epoch, file: file(epoch.0, fresh), start_position, base_offset, seal }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn under_random_faults_every_answer_is_true() {
    let mut occurred = [0; Fault::ALL.len()];
    let mut applied = 0;
    for seed in 0..30 {
        let random = Random::from_seed(seed);
        let cluster = Cluster::start().await;
        let mut broker = Broker::claim(&cluster, 1).await;
        let mut model = Model::default();
        model.records.absorb(transition::Changes { head: Some(broker.claimed.head.clone()), ..Default::default() });
        cluster.faults.set_chaos(random.clone(), 2);
        let intent = Intent { node: NodeId(1), term: cluster.term };
        for fresh in 1..60 {
            let kind = next_kind(&random, &broker, &model.records, fresh);
            let command = broker.command(kind);
            let expected = model.apply(intent, &command);
            let answer = loop {
                match cluster.meta.command(command.clone()).await {
                    Err(error) if error.happened == Happened::Unknown => {}
                    answer => break answer,
                }
            };
            match (&answer, &expected) {
                (Ok(view), Ok(())) => {
                    applied += 1;
                    broker.epoch = view.head.epoch;
                }
                (Err(error), Err(refusal)) => assert_eq!(error.code, refusal.code, "seed {seed}"),
                _ => panic!("seed {seed}: {command:?} gave {answer:?}, not {expected:?}"),
            }
        }
        cluster.faults.set_chaos(random.clone(), 0);
        let found = cluster.meta.partition(cluster.partition).await.unwrap();
        assert_eq!(found.head, model.records.head, "seed {seed}");
        assert_eq!(found.segments, model.records.segments.values().cloned().collect::<Vec<_>>(), "seed {seed}");
        occurred.iter_mut().zip(cluster.faults.counts()).for_each(|(sum, count)| *sum += count);
    }
    println!("applied {applied}, faults {occurred:?}");
    assert!(applied > 300 && occurred.iter().all(|count| *count > 50));
}
