//! A disk without room: clear errors, and all goes on when there is room again.
//!
//! The process has a small file system of its own, which ends with it. Whoever is not root needs user namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bmq_client::{Client, Error, ProducerConfig, Record};
use bmq_integration_tests::read_back;
use bmq_integration_tests::standalone::{self, Standalone};

const DISK_MIB: u64 = 48;
/// Left free beside the file that fills the disk.
const LEFT_MIB: u64 = 4;
const RECORD_BYTES: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts it in a mount namespace, on a small file system at `disk`.
fn start(disk: &Path) -> Result<Standalone> {
    let inner = standalone::command(&disk.join("data"), &["--set", "proxy.produce.answer_timeout=2s"])?;
    let mut command = Command::new("unshare");
    // SAFETY: it asks for a number and touches nothing.
    if unsafe { libc::geteuid() } != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$0\" && exec \"$@\""));
    command.arg(disk).arg(inner.get_program()).args(inner.get_args());
    Standalone::spawn(command, disk.with_extension("log"))
}

/// The disk as the process sees it.
fn seen_by(standalone: &Standalone, disk: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", standalone.process.pid));
    root.join(disk.strip_prefix("/").unwrap())
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_string().into_bytes();
    payload.resize(RECORD_BYTES, b'.');
    payload
}

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk)?;
    let standalone = start(&disk)?;
    standalone.bmq(&["topic", "create", "events"])?;
    let filler = seen_by(&standalone, &disk).join("filler");
    std::fs::write(&filler, vec![0; ((DISK_MIB - LEFT_MIB) << 20) as usize])?;

    let client = Client::connect(&standalone.server).await?;
    let mut acked = Vec::new();
    let error = produce_until_failure(&client, &mut acked).await?;
    println!("after {} records: {error}", acked.len());
    ensure!(!acked.is_empty(), "there was room for some");
    ensure!(error.message.contains("no space left"), "{error}");
    ensure!(standalone.get("/livez")?.starts_with("HTTP/1.1 200"), "the process lives");
    // What is there can be read, and metadata answers.
    let records = read_back::by_consumer(&standalone.server, "events", 1).await?;
    ensure!(records.len() >= acked.len(), "{} of {} are readable", records.len(), acked.len());
    standalone.bmq(&["topic", "describe", "events"])?;

    std::fs::remove_file(&filler)?;
    let begun = Instant::now();
    let number = 1_000_000;
    loop {
        match produce(&client, number).await {
            Ok(offset) => break acked.push((number, offset)),
            Err(error) if begun.elapsed() > PATIENCE => bail!("it does not go on: {error}"),
            Err(_) => {}
        }
    }
    println!("goes on {:.1?} after there is room", begun.elapsed());
    standalone.bmq(&["topic", "create", "others"])?;
    let records = read_back::by_consumer(&standalone.server, "events", 1).await?;
    for (number, offset) in &acked {
        let record = records.get(*offset as usize).with_context(|| format!("record {number} is lost"))?;
        ensure!(record.offset == *offset && record.payload == payload(*number), "record {number} is lost");
    }
    let (status, _) = standalone.interrupt()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

async fn produce_until_failure(client: &Client, acked: &mut Vec<(u64, u64)>) -> Result<Error> {
    for number in 0..2 * DISK_MIB * 16 {
        match produce(client, number).await {
            Ok(offset) => acked.push((number, offset)),
            Err(error) => return Ok(error),
        }
    }
    bail!("the disk never filled up")
}

/// Writes one record, with a producer of its own: one that failed does not go on.
async fn produce(client: &Client, number: u64) -> Result<u64, Error> {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(5), ..ProducerConfig::default() };
    let producer = client.producer(config)?;
    let delivery = producer.send("events", Record::value(payload(number))).await?;
    Ok(delivery.await?.offset)
}
