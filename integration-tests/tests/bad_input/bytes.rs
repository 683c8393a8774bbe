//! Bytes at the gRPC port that are no gRPC, or not all of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_common::Random;

use super::Target;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A SETTINGS frame without settings.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// HTTP/2's GOAWAY.
const GO_AWAY: u8 = 7;

/// The head of a frame: length, kind, flags, stream.
fn frame(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut head = length.to_be_bytes()[1..].to_vec();
    head.extend([kind, flags]);
    head.extend(stream.to_be_bytes());
    head
}

/// Sends bytes, and reads until the server ends the connection; it must do so in time.
fn answer_to(target: &Target, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(&target.standalone.server)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // It may be gone before it has read all.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(error).context("the server leaves the connection open")
        }
        // A reset is an end as well.
        _ => Ok(answer),
    }
}

/// Whether a frame of this kind is among those answered.
fn has_frame(answer: &[u8], kind: u8) -> bool {
    let mut rest = answer;
    while let Some((head, body)) = rest.split_at_checked(9) {
        if head[3] == kind {
            return true;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        rest = body.get(length..).unwrap_or_default();
    }
    false
}

#[test]
fn bytes_that_are_no_http2_end_their_connection_only() -> Result<()> {
    let target = Target::start()?;
    let random = Random::from_seed(11);
    for length in [1, 24, 100, 65_536, 1 << 20] {
        let mut garbage = vec![0; length];
        random.fill(&mut garbage);
        garbage[0] = 0xfe;
        answer_to(&target, &garbage).with_context(|| format!("{length} bytes"))?;
    }
    answer_to(&target, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
    target.assert_well(200)
}

#[test]
fn frames_that_break_the_rules_are_told_so() -> Result<()> {
    let target = Target::start()?;
    let begun = [PREFACE, &SETTINGS].concat();
    let broken: [(&str, Vec<u8>); 5] = [
        ("a frame of 16 MiB", frame(0x00ff_ffff, 0, 0, 1)),
        ("data on no stream", [frame(4, 0, 0, 1), vec![0; 4]].concat()),
        ("headers on stream 0", [frame(1, 1, 4, 0), vec![0]].concat()),
        ("headers that are none", [frame(8, 1, 4, 1), vec![0xff; 8]].concat()),
        ("settings of a wrong length", [frame(5, 4, 0, 0), vec![0; 5]].concat()),
    ];
    for (what, frames) in broken {
        let answer = answer_to(&target, &[&begun[..], &frames].concat()).context(what)?;
        ensure!(has_frame(&answer, GO_AWAY), "{what}: {answer:?}");
    }
    target.assert_well(200)
}

#[test]
fn halves_of_requests_hold_nothing() -> Result<()> {
    let target = Target::start()?;
    let whole = [PREFACE, &SETTINGS, &frame(100, 1, 4, 1)].concat();
    for round in 0..400 {
        let mut stream = TcpStream::connect(&target.standalone.server)?;
        stream.write_all(&whole[..round % whole.len()])?;
        // Half of them leave at once, with what they sent unread.
        if round % 2 == 0 {
            stream.shutdown(std::net::Shutdown::Both)?;
        }
    }
    target.assert_well(200)
}
