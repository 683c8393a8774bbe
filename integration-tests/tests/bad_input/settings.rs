//! Settings and flags that are wrong: told by name, with what was probably meant.

use std::process::Command;

use anyhow::{Result, ensure};
use bmq_integration_tests::bmq_binary;

/// Runs `bmq` with a file of settings and arguments; it must refuse them as a wrong use.
fn assert_refused(file: &str, arguments: &[&str], environment: &[(&str, &str)], words: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("bmq.toml");
    std::fs::write(&config, file)?;
    let mut command = Command::new(bmq_binary::path()?);
    command.current_dir(folder.path()).envs(environment.iter().copied()).args(arguments);
    command.arg("--config").arg(&config);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(2), "{arguments:?} ended with {}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{arguments:?} with {file:?} does not say {word:?}: {said}");
    }
    Ok(())
}

#[test]
fn misspelt_keys_are_told_what_they_might_be() -> Result<()> {
    let standalone = ["standalone"];
    let check = |file: &str, words: &[&str]| assert_refused(file, &standalone, &[], words);
    check("data_dirr = \"x\"", &["unknown key `data_dirr`", "bmq.toml", "did you mean `data_dir`?"])?;
    check("[brokr]\nnode_id = 1", &["`brokr", "did you mean `broker"])?;
    check("[broker.partition]\nsegment_byte = 1", &["segment_byte`", "did you mean", "segment_bytes`?"])?;
    check("[proxy.fetch]\nmax_byte = \"1MiB\"", &["max_byte`", "did you mean", "max_bytes`?"])?;
    let set = ["standalone", "--set", "brokr.node_id=2"];
    assert_refused("", &set, &[], &["brokr.node_id", "did you mean `broker`?"])?;
    let environment = [("BMQ_BROKER__NODE_IDD", "2")];
    assert_refused("", &standalone, &environment, &["BMQ_BROKER__NODE_IDD", "did you mean"])
}

#[test]
fn values_that_make_no_sense_are_named() -> Result<()> {
    let check = |file: &str, words: &[&str]| assert_refused(file, &["standalone"], &[], words);
    check("data_dir = ", &["bmq.toml", "line 1"])?;
    check("[broker]\nnode_id = \"many\"", &["node_id"])?;
    check("[broker]\nsession_ttl = \"1s\"", &["session_ttl (1s) must be at least 2s"])?;
    check("[broker.partition]\nsegment_bytes = \"256 apples\"", &["segment_bytes", "256 apples"])?;
    check("[proxy.produce]\nlane_batches = 0", &["produce.lane_batches must not be zero"])?;
    check("[grpc]\naddress = \"192.0.2.1:9640\"", &["192.0.2.1:9640", "no authentication", "--insecure"])?;
    check("[grpc]\naddress = \"nowhere\"", &["grpc.address"])
}

#[test]
fn misspelt_flags_are_told_what_they_might_be() -> Result<()> {
    assert_refused("", &["standalone", "--dta-dir", "x"], &[], &["--dta-dir", "--data-dir"])?;
    assert_refused("", &["standalon"], &[], &["standalon", "standalone"])?;
    assert_refused("", &["broker", "--node-id", "1"], &[], &["--node-id"])
}
