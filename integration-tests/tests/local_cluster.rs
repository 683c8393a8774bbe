//! `bmq local-cluster` over real etcd and HDFS, as a user would use it: a large file goes in and comes out byte for
//! byte, also after every process was killed; a deleted topic leaves nothing behind; Ctrl-C leaves nothing running.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_integration_tests::bmq_binary;
use bmq_integration_tests::cluster::{Cluster, ClusterPlan, ROOT, runtime, wait_for};
use bmq_integration_tests::meta_view::MetaView;

const TOPIC: &str = "lines";
const FILE_BYTES: u64 = 50 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_large_file_goes_in_and_comes_out() -> Result<()> {
    let plan = ClusterPlan { datanodes: 4, brokers: 2, proxies: 1, settings: Vec::new() };
    let mut cluster = Cluster::start(plan)?;
    let outcome = exercise(&mut cluster);
    if outcome.is_err() {
        cluster.keep_logs();
    }
    outcome
}

fn exercise(cluster: &mut Cluster) -> Result<()> {
    let input = cluster.folder().join("input");
    write_lines(&input)?;
    let input = input.to_str().context("the folder's name is text")?.to_owned();
    let server = cluster.bmq.servers().remove(0);
    bmq_binary::run(&server, &["topic", "create", TOPIC])?;
    bmq_binary::run(&server, &["produce", TOPIC, "--file", &input])?;
    assert_consumes(cluster, &input)?;

    cluster.kill_and_start_bmq()?;
    assert_consumes(cluster, &input)?;

    delete_topic(cluster)?;
    stop(cluster)
}

/// Lines of all lengths, each different.
fn write_lines(path: &Path) -> Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut written = 0;
    for number in 0_u64.. {
        let length = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        let line = format!("{number} {}\n", "-+*/".repeat(length));
        out.write_all(line.as_bytes())?;
        written += line.len() as u64;
        if written >= FILE_BYTES {
            break;
        }
    }
    Ok(out.flush()?)
}

/// What is consumed from the beginning is the file, byte for byte.
fn assert_consumes(cluster: &Cluster, input: &str) -> Result<()> {
    let server = cluster.bmq.servers().remove(0);
    let output = cluster.folder().join("output");
    let arguments = ["consume", TOPIC, "--from", "earliest", "--until-end"];
    let mut command = bmq_binary::command(&server, &arguments)?;
    let ended = command.stdout(File::create(&output)?).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    bmq_binary::succeeded(&arguments, ended)?;
    let (expected, found) = (std::fs::read(input)?, std::fs::read(&output)?);
    let differ = expected.iter().zip(&found).position(|(expected, found)| expected != found);
    ensure!(
        differ.is_none() && expected.len() == found.len(),
        "{} bytes went in, {} came out, the first difference is at {differ:?}",
        expected.len(),
        found.len()
    );
    Ok(())
}

/// The topic's folder and its records are gone in the end.
fn delete_topic(cluster: &Cluster) -> Result<()> {
    let server = cluster.bmq.servers().remove(0);
    let view = runtime().block_on(MetaView::connect(cluster.etcd.endpoint()))?;
    let topic = runtime().block_on(view.topic(TOPIC))?.context("the topic has a record")?;
    let folder = format!("{ROOT}/{}/{}", runtime().block_on(view.cluster())?, topic.id);
    ensure!(cluster.hdfs.exists(&folder)?, "{folder} is not where the topic's files are");
    ensure!(!runtime().block_on(view.keys_of(topic.id))?.is_empty(), "the topic's records are not found");

    bmq_binary::run(&server, &["topic", "delete", TOPIC])?;
    wait_for("the topic's records to be gone", PATIENCE, || {
        Ok(runtime().block_on(view.keys_of(topic.id))?.is_empty().then_some(()))
    })?;
    ensure!(!cluster.hdfs.exists(&folder)?, "{folder} outlives its topic's records");
    Ok(())
}

/// Ctrl-C ends all of it.
fn stop(cluster: &mut Cluster) -> Result<()> {
    let status = cluster.bmq.interrupt()?;
    ensure!(status.success(), "bmq local-cluster ended with {status}");
    ensure!(cluster.bmq.running().is_empty(), "still running: {:?}", cluster.bmq.running());
    Ok(())
}
