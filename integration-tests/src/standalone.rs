//! A running `bmq standalone`, as a user starts it. Killed when the value goes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bmq_binary;
use crate::process::Process;

/// The process, once it has said that it runs.
pub struct Standalone {
    child: Child,
    /// `host:port` for clients.
    pub server: String,
    /// `host:port` for Kafka clients.
    pub kafka: String,
    /// `host:port` for operators.
    pub http: String,
    pub process: Process,
    log: PathBuf,
    /// Kept, so that the process can go on writing.
    _stdout: BufReader<ChildStdout>,
}

/// The command that starts it on free ports.
pub fn command(data_dir: &Path, more: &[&str]) -> Result<Command> {
    let mut command = Command::new(bmq_binary::path()?);
    command.arg("standalone").arg("--data-dir").arg(data_dir);
    command.args(["--grpc", "127.0.0.1:0", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"]).args(more);
    Ok(command)
}

/// Runs it where it is expected to end by itself.
pub fn run_to_end(data_dir: &Path, more: &[&str]) -> Result<Output> {
    Ok(command(data_dir, more)?.stdin(Stdio::null()).output()?)
}

impl Standalone {
    /// Starts it over a folder, with its log beside that.
    pub fn start(data_dir: &Path, more: &[&str]) -> Result<Self> {
        Self::spawn(command(data_dir, more)?, data_dir.with_extension("log"))
    }

    /// Starts a command that becomes `bmq standalone`. Returns when that says that it runs.
    pub fn spawn(mut command: Command, log: PathBuf) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(&log)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("the output is piped")?);
        match read_welcome(&mut stdout) {
            Ok(Addresses { server, kafka, http }) => {
                let process = Process::find(child.id())?;
                Ok(Self { child, server, kafka, http, process, log, _stdout: stdout })
            }
            Err(error) => {
                child.kill()?;
                let status = child.wait()?;
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                Err(error.context(format!("bmq standalone did not start ({status}): {}", said.trim())))
            }
        }
    }

    /// Runs a tool against it; returns what that printed.
    pub fn bmq(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        bmq_binary::run(&self.server, arguments)
    }

    /// As [`Self::bmq`], for a tool that shall print JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let printed = self.bmq(arguments)?;
        serde_json::from_slice(&printed).with_context(|| format!("{} printed no JSON", arguments.join(" ")))
    }

    /// Runs a tool that is expected to fail; returns its exit code and what it said.
    pub fn refused(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let output = bmq_binary::command(&self.server, arguments)?.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(code) if code != 0 => Ok((code, said)),
            _ => bail!("bmq {} ended with {}: {said}", arguments.join(" "), output.status),
        }
    }

    /// Ctrl-C. Returns how it ended, and how long that took.
    pub fn interrupt(mut self) -> Result<(ExitStatus, Duration)> {
        let begun = Instant::now();
        self.process.interrupt()?;
        Ok((self.child.wait()?, begun.elapsed()))
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Memory in use.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most memory that was ever in use.
    pub fn peak_resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("the process has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib << 10)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// One GET at the operators' port: the whole answer.
    pub fn get(&self, path: &str) -> Result<String> {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&self.http)?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where it said that it listens.
struct Addresses {
    server: String,
    kafka: String,
    http: String,
}

fn read_welcome(stdout: &mut impl BufRead) -> Result<Addresses> {
    let (mut server, mut kafka, mut http) = (None, None, None);
    for line in stdout.lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("clients"), Some(address)) => server = Some(address.to_owned()),
            (Some("Kafka"), Some(address)) => kafka = Some(address.to_owned()),
            (Some("operators"), Some(url)) => {
                let address = url.trim_start_matches("http://");
                http = Some(address.split('/').next().unwrap_or_default().to_owned());
            }
            _ => {}
        }
        if let (Some(server), Some(kafka), Some(http)) = (&server, &kafka, &http) {
            return Ok(Addresses { server: server.clone(), kafka: kafka.clone(), http: http.clone() });
        }
    }
    bail!("it ended before it said where it listens")
}
