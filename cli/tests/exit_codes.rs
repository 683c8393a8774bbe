//! What a script sees of the binary without a server: exit codes, and what goes where.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the error")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

fn bmq(arguments: &[&str]) -> Output {
    // Whatever the machine's environment says, settings come from the arguments alone.
    let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("BMQ_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bmq"));
    for name in ours {
        command.env_remove(name);
    }
    command.args(arguments).output().unwrap()
}

fn check(arguments: &[&str], code: i32, error: &str) {
    let output = bmq(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(error), "{arguments:?}: no `{error}` in: {stderr}");
    assert!(code == 0 || output.stdout.is_empty(), "{arguments:?} failed and printed an answer");
}

#[test]
fn wrong_usage_and_configuration_are_2() {
    check(&["no-such-command"], 2, "Usage");
    check(&["standalone", "--grpc", "0.0.0.0:0"], 2, "there is no authentication yet");
    check(&["broker", "--config", "absent.toml"], 2, "cannot read the configuration file absent.toml");
    check(&["broker", "--set", "grpc.adress=1"], 2, "did you mean `grpc.address`?");
    check(&["proxy", "--set", "store.url=/somewhere"], 2, "neither hdfs://");
    check(&["local-cluster", "--etcd", "127.0.0.1:1", "--store", "file:///tmp/x"], 2, "bmq standalone");
    check(&["topic", "list", "--server", "nowhere"], 2, "host:port expected");
    check(&["standalone", "--set", "grpc.advertised=nowhere"], 2, "host:port expected");
    check(&["broker", "--set", "broker.advertised_address=a:1"], 2, "unknown key `broker.advertised_address` in --set");
    check(&["broker", "--set", "store.hdfs.url=hdfs://a:1/b"], 2, "store.hdfs.url");
}

/// Nothing is started, nor a folder made, for settings of which any is wrong.
#[test]
fn a_cluster_is_checked_as_a_whole_before_it_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("cluster");
    let refused = |more: &[&str], error: &str| {
        let cluster = ["local-cluster", "--store", "hdfs://127.0.0.1:1/bmq", "--dir", dir.to_str().unwrap()];
        check(&[&cluster, more].concat(), 2, error);
        assert!(!dir.exists(), "{more:?}");
    };
    refused(&["--etcd", "nowhere"], "`nowhere` is not an address");
    refused(&["--etcd", "127.0.0.1:1", "--set", "proxy.produce.lane_batches=0"], "lane_batches must not be zero");
    refused(&["--etcd", "127.0.0.1:1", "--session-ttl", "1s"], "at least 2s");
    refused(&["--etcd", "127.0.0.1:1", "--set", "broker.node_id=7"], "brokers are numbered");
}

#[test]
fn a_server_that_is_not_there_is_4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let refused = format!("cannot reach bmq at {address}: connection refused; is it running?");
    check(&["--server", &address, "topic", "list"], 4, &refused);
    check(&["--server", &address, "consume", "orders"], 4, &refused);
}

#[test]
fn a_port_of_another_kind_is_5() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Goes on until the process of the tests ends.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            // The other side may have left.
            let _ = stream.and_then(|mut stream| {
                stream.write_all(answer)?;
                stream.read(&mut [0; 1024])
            });
        }
    });
    check(&["--server", &address, "topic", "list"], 5, &format!("{address} is not bmq's gRPC port"));
}

#[test]
fn a_file_that_is_not_there_is_1() {
    check(&["produce", "orders", "--file", "absent.txt"], 1, "cannot read absent.txt");
}

#[test]
fn printed_settings_load_again() {
    let folder = tempfile::tempdir().unwrap();
    for service in ["standalone", "meta", "controller", "broker", "proxy"] {
        let printed = bmq(&[service, "--print-config"]);
        assert_eq!(printed.status.code(), Some(0), "{service}: {}", String::from_utf8_lossy(&printed.stderr));
        let text = String::from_utf8(printed.stdout).unwrap();
        text.parse::<toml::Table>().unwrap();
        let file = folder.path().join(service);
        std::fs::write(&file, &text).unwrap();
        let again = bmq(&[service, "--config", file.to_str().unwrap(), "--print-config"]);
        assert_eq!(String::from_utf8(again.stdout).unwrap(), text, "{service}");
    }
}
