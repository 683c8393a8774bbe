//! Kafka clients that were not written here, against `bmq standalone`: the short list of the conformance suite.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use bmq_integration_tests::process;
use bmq_integration_tests::standalone::Standalone;

#[test]
fn kafka_clients_do_the_short_list() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let standalone = Standalone::start(&folder.path().join("data"), &[])?;
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka-clients").join("run");
    let mut run = Command::new(suite);
    run.args(["--list", "short", "--clients", "java,confluent,kcat", "--target", &standalone.kafka]);
    process::die_with_this_thread(&mut run).stdin(Stdio::null());
    let output = run.output()?;
    let (said, log) = (String::from_utf8_lossy(&output.stderr), standalone.log());
    ensure!(output.status.success(), "{said}\nbmq logged:\n{log}");
    Ok(())
}
