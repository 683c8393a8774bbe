//! A large file goes in through a pipe and comes out byte for byte, also after a clean stop.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_common::Random;
use bmq_integration_tests::bmq_binary;
use bmq_integration_tests::standalone::Standalone;

const FILE_BYTES: u64 = 300 << 20;
const STOP_DEADLINE: Duration = Duration::from_secs(5);

#[test]
fn a_large_file_goes_in_and_comes_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, input) = (folder.path().join("data"), folder.path().join("input"));
    let lines = write_lines(&input)?;
    let standalone = Standalone::start(&data, &[])?;
    standalone.bmq(&["topic", "create", "lines"])?;

    let arguments = ["produce", "lines"];
    let mut command = bmq_binary::command(&standalone.server, &arguments)?;
    let output = command.stdin(File::open(&input)?).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    bmq_binary::succeeded(&arguments, output)?;
    println!("{}", said.trim());
    ensure!(said.contains(&format!("{lines} records")), "{lines} lines went in: {said}");
    assert_consumes(&standalone, &input)?;

    let (status, took) = standalone.interrupt()?;
    println!("stopped in {took:.1?}");
    ensure!(status.code() == Some(0) && took < STOP_DEADLINE, "{status} after {took:?}");
    let standalone = Standalone::start(&data, &[])?;
    assert_consumes(&standalone, &input)?;
    let at = lines / 2;
    let one = standalone.bmq(&["consume", "lines", "--from", &at.to_string(), "--max", "1"])?;
    let nth = BufReader::new(File::open(&input)?);
    let nth = std::io::BufRead::split(nth, b'\n').nth(at as usize).context("the line is there")??;
    ensure!(one.strip_suffix(b"\n") == Some(&nth[..]), "another record is at offset {at}");
    ensure!(standalone.get("/readyz")?.starts_with("HTTP/1.1 200"), "ready");
    Ok(())
}

/// Lines of all kinds: empty ones, long ones, ASCII, other UTF-8, bytes that are neither, carriage returns. The last one
/// ends with the file, without a newline.
fn write_lines(path: &Path) -> Result<u64> {
    let random = Random::from_seed(7);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut noise = vec![0; 100 << 10];
    random.fill(&mut noise);
    noise.iter_mut().for_each(|byte| *byte = if *byte == b'\n' { 0 } else { *byte });
    let (mut lines, mut written) = (0, 0);
    while written < FILE_BYTES {
        let line = match random.below(200) {
            0 => noise.clone(),
            1..10 => Vec::new(),
            10..20 => format!("{lines} Grüße, 世界 🦀\r").into_bytes(),
            20..30 => noise[..random.below(2_000) as usize].to_vec(),
            _ => format!("{lines} {}", "-+*/".repeat(random.below(250) as usize)).into_bytes(),
        };
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        written += line.len() as u64 + 1;
        lines += 1;
    }
    out.write_all(b"the last line")?;
    out.flush()?;
    Ok(lines + 1)
}

/// What is consumed from the beginning is the file and one newline, compared as it comes.
fn assert_consumes(standalone: &Standalone, input: &Path) -> Result<()> {
    let arguments = ["consume", "lines", "--from", "earliest", "--until-end"];
    let mut command = bmq_binary::command(&standalone.server, &arguments)?;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut found = child.stdout.take().context("the output is piped")?;
    let mut expected = BufReader::with_capacity(1 << 20, File::open(input)?).chain(&b"\n"[..]);
    let (mut block, mut wanted, mut position) = (vec![0; 1 << 20], vec![0; 1 << 20], 0);
    loop {
        let count = found.read(&mut block)?;
        if count == 0 {
            break;
        }
        expected.read_exact(&mut wanted[..count]).with_context(|| format!("more than {position} bytes came out"))?;
        ensure!(block[..count] == wanted[..count], "another byte comes out after {position}");
        position += count;
    }
    bmq_binary::succeeded(&arguments, child.wait_with_output()?)?;
    ensure!(expected.read(&mut wanted)? == 0, "only {position} bytes came out");
    Ok(())
}
