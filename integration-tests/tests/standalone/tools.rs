//! What the tools print, and how they end.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Result, ensure};
use bmq_integration_tests::bmq_binary;
use bmq_integration_tests::standalone::Standalone;
use serde_json::json;

/// Pipes text into `bmq produce`; returns what it says at the end.
pub fn produce(standalone: &Standalone, topic: &str, more: &[&str], text: &[u8]) -> Result<String> {
    let mut arguments = vec!["produce", topic];
    arguments.extend(more);
    let mut command = bmq_binary::command(&standalone.server, &arguments)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().unwrap().write_all(text)?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    bmq_binary::succeeded(&arguments, output)?;
    Ok(said)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn topics_and_records_are_shown_to_people_and_to_scripts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let standalone = Standalone::start(&folder.path().join("data"), &[])?;
    ensure!(text(standalone.bmq(&["topic", "list"])?).contains("bmq topic create"), "an empty list says what to do");
    ensure!(standalone.json(&["topic", "list", "-o", "json"])? == json!({"topics": []}));

    let settings = ["--partitions", "2", "--config", "segment.bytes=1048576", "-o", "json"];
    let created = standalone.json(&[&["topic", "create", "orders"], &settings[..]].concat())?;
    let expected = json!({
        "name": "orders", "topic_id": created["topic_id"], "partitions": 2,
        "config": {"segment.bytes": "1048576"}, "deleting": false, "internal": false,
    });
    ensure!(created == expected, "{created}");
    ensure!(standalone.json(&["topic", "list", "-o", "json"])? == json!({"topics": [created]}));

    let said = produce(&standalone, "orders", &["--key-separator", "|"], b"alice|40\nbob|2\n\xff|\xfe\n")?;
    ensure!(said.contains("3 records"), "{said}");
    let described = standalone.json(&["topic", "describe", "orders", "-o", "json"])?;
    let partitions = described["partition_list"].as_array().unwrap();
    let written: u64 = partitions.iter().map(|partition| partition["high_watermark"].as_u64().unwrap()).sum();
    ensure!(partitions.len() == 2 && written == 3, "{described}");
    ensure!(partitions.iter().all(|partition| partition["owner"] == 1 && partition["log_start"] == 0), "{described}");
    ensure!(text(standalone.bmq(&["topic", "describe", "orders"])?).contains("PARTITION  OWNER  EPOCH"));

    let consumed = text(standalone.bmq(&["consume", "orders", "--until-end", "-o", "json"])?);
    let mut records: Vec<serde_json::Value> =
        consumed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["key"].to_string());
    let keys: Vec<_> = records.iter().map(|record| (&record["key"], &record["value"])).collect();
    let binary = (json!({"hex": "ff"}), json!({"hex": "fe"}));
    let expected = [(&json!("alice"), &json!("40")), (&json!("bob"), &json!("2")), (&binary.0, &binary.1)];
    ensure!(keys == expected, "{consumed}");
    ensure!(records.iter().all(|record| record["topic"] == "orders" && record["timestamp_ms"].is_u64()), "{consumed}");

    standalone.bmq(&["topic", "delete", "orders"])?;
    let (code, said) = standalone.refused(&["consume", "orders", "--until-end"])?;
    ensure!(code == 3, "{code}: {said}");
    Ok(())
}

#[test]
fn consuming_begins_and_ends_where_it_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let standalone = Standalone::start(&folder.path().join("data"), &[])?;
    standalone.bmq(&["topic", "create", "events"])?;
    produce(&standalone, "events", &["--compression", "zstd"], b"zero\none\ntwo\n")?;
    produce(&standalone, "events", &["--compression", "lz4", "--ack", "memory"], b"three\nfour\n")?;
    let check = |more: &[&str], expected: &str| -> Result<()> {
        let consumed = text(standalone.bmq(&[&["consume", "events"], more].concat())?);
        ensure!(consumed == expected, "{more:?}: {consumed:?}");
        Ok(())
    };
    check(&["--until-end"], "zero\none\ntwo\nthree\nfour\n")?;
    check(&["--until-end", "--from", "1"], "one\ntwo\nthree\nfour\n")?;
    check(&["--from", "3", "--max", "1"], "three\n")?;
    check(&["--until-end", "--from", "latest"], "")?;
    check(&["--until-end", "--from", "5"], "")?;
    let (code, said) = standalone.refused(&["consume", "events", "--until-end", "--from", "6"])?;
    ensure!(code == 3 && said.contains("offset 6 lies outside"), "{code}: {said}");
    Ok(())
}

#[test]
fn exit_codes_are_as_documented() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let standalone = Standalone::start(&folder.path().join("data"), &[])?;
    standalone.bmq(&["topic", "create", "events"])?;
    let check = |arguments: &[&str], expected: i32, words: &str| -> Result<()> {
        let (code, said) = standalone.refused(arguments)?;
        ensure!(code == expected && said.contains(words), "{arguments:?} ended with {code}: {said}");
        Ok(())
    };
    check(&["topic", "describe", "absent"], 3, "absent")?;
    check(&["topic", "delete", "absent"], 3, "absent")?;
    let input = folder.path().join("input");
    std::fs::write(&input, "a line\n")?;
    check(&["produce", "absent", "--file", input.to_str().unwrap()], 3, "absent")?;
    check(&["produce", "events", "--partition", "7", "--file", input.to_str().unwrap()], 3, "partition 7")?;
    check(&["consume", "events", "--partition", "7", "--until-end"], 3, "7")?;
    check(&["topic", "create", "events"], 5, "events")?;
    check(&["topic", "create", "b@d"], 5, "b@d")?;
    check(&["topic", "create", "other", "--config", "segment.size=1"], 5, "did you mean `segment.bytes`")?;
    check(&["topic", "create"], 2, "NAME")?;
    check(&["topik", "list"], 2, "topic")?;
    check(&["consume", "events", "--from", "end"], 2, "earliest")?;
    check(&["produce", "events", "--file", "/does/not/exist"], 1, "cannot read /does/not/exist")?;

    let server = standalone.server.clone();
    let (status, _) = standalone.interrupt()?;
    ensure!(status.code() == Some(0), "{status}");
    let nobody = bmq_binary::command(&server, &["topic", "list"])?.output()?;
    let said = String::from_utf8_lossy(&nobody.stderr);
    ensure!(nobody.status.code() == Some(4) && said.contains("cannot reach"), "{}: {said}", nobody.status);
    Ok(())
}
