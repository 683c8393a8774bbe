//! Real daemons, real kills: DataNodes and brokers are killed and stopped under load, and everything that a client was
//! told is then held against what two readers find.
//!
//! A fault counts only if a sync was in flight on a file that it hit, as the DataNodes' disks and the NameNode show it
//! while the victim stands still, and if answers were outstanding. `KILLS=n` makes n rounds of every fault.

#[path = "kills/arena.rs"]
mod arena;
#[path = "kills/load_process.rs"]
mod load_process;
#[path = "kills/report.rs"]
mod report;
#[path = "kills/strike.rs"]
mod strike;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_integration_tests::cluster::{Cluster, ClusterPlan, runtime, wait_for};
use bmq_integration_tests::history::{ReadRecord, Violation, judge};
use bmq_integration_tests::{bmq_binary, read_back};

use arena::Arena;
use report::Report;
use strike::Fault;

const TOPIC: &str = "kills";
const PARTITIONS: u32 = 8;
const DATANODES: usize = 5;
const ROUNDS: usize = 2;

/// For sealed files to be closed after everything was started anew.
const CLOSING_PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_was_acknowledged_is_read_back_after_kills() -> Result<()> {
    let rounds = std::env::var("KILLS").map_or(Ok(ROUNDS), |text| text.parse()).context("KILLS is a number")?;
    // JSON, since the report takes times from the logs.
    let settings = vec!["log.format=json".to_owned()];
    let mut cluster = Cluster::start(ClusterPlan { datanodes: DATANODES, brokers: 3, proxies: 2, settings })?;
    let outcome = exercise(&mut cluster, rounds);
    if outcome.is_err() {
        cluster.keep_logs();
    }
    outcome
}

fn exercise(cluster: &mut Cluster, rounds: usize) -> Result<()> {
    let server = cluster.bmq.servers().remove(0);
    let partitions = PARTITIONS.to_string();
    // Small segments, so that faults also meet rolls.
    let create = ["topic", "create", TOPIC, "--partitions", &partitions, "--config", "segment.bytes=1048576"];
    bmq_binary::run(&server, &create)?;

    let mut arena = Arena::enter(cluster, TOPIC)?;
    let mut strikes = Vec::new();
    for round in 0..rounds {
        for fault in Fault::ALL {
            strikes.push(arena.strike(fault, round)?);
        }
    }
    let journal = arena.leave()?;
    let mut report = Report::new(&journal, strikes, &cluster.bmq)?;

    cluster.kill_and_start_bmq()?;
    let records = read_back_twice(cluster)?;
    let violations = judge(&journal, &records);
    report.count(&violations);
    println!("{report}");
    report.require_outstanding_answers()?;
    ensure!(violations.is_empty(), "{} violations, such as {:#?}", violations.len(), first_few(&violations));
    Ok(())
}

/// What a consumer and the raw reader find, which must be the same.
fn read_back_twice(cluster: &Cluster) -> Result<Vec<ReadRecord>> {
    let server = cluster.bmq.servers().remove(0);
    let consumed = runtime().block_on(read_back::by_consumer(&server, TOPIC, PARTITIONS))?;
    let view = arena::view(cluster)?;
    let topic = runtime().block_on(view.topic(TOPIC))?.context("the topic has a record")?;
    wait_for("all files to be closed", CLOSING_PATIENCE, || {
        Ok(runtime().block_on(view.all_closed(&topic))?.then_some(()))
    })?;
    let raw = read_back::by_raw_reader(cluster, TOPIC)?;
    let differ = consumed.iter().zip(&raw).find(|(consumed, raw)| consumed != raw);
    ensure!(differ.is_none(), "the readers differ: {differ:?}");
    let (consumed_count, raw_count) = (consumed.len(), raw.len());
    ensure!(consumed_count == raw_count, "a consumer finds {consumed_count} records, the raw reader {raw_count}");
    Ok(raw)
}

fn first_few(violations: &[Violation]) -> &[Violation] {
    &violations[..violations.len().min(20)]
}
