//! Real HDFS for tests: a NameNode and DataNodes as processes of their own, started by `scripts/hdfs`, and what a test
//! wants to know of them.
//!
//! The cluster ends with its value, and in any case with the test's process: the script watches over that. All calls
//! block; they are short, except for starting daemons.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::process::Process;

/// How long a daemon may take to answer over HTTP.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A running cluster.
pub struct HdfsCluster {
    script: PathBuf,
    folder: PathBuf,
    state: State,
    /// Whether something was killed or stopped since everything was seen running.
    hurt: AtomicBool,
}

/// The parts of the script's `cluster.json` that do not change while it runs.
#[derive(Deserialize)]
struct State {
    uri: String,
    namenode: NameNode,
    datanodes: Vec<DataNode>,
}

#[derive(Deserialize)]
struct NameNode {
    http_address: String,
}

/// A file's last block as it stands at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastBlock {
    /// The DataNodes that hold it, the pipeline's order first to last.
    pub datanodes: Vec<usize>,
    /// The length that the NameNode knows: what the last sync told it.
    pub known_bytes: u64,
    /// The bytes that have arrived at one of the DataNodes at least; `None` once no DataNode is writing the block.
    pub arrived_bytes: Option<u64>,
}

impl LastBlock {
    /// Whether bytes have arrived that no sync has finished for.
    pub fn has_sync_in_flight(&self) -> bool {
        self.arrived_bytes.is_some_and(|arrived| arrived > self.known_bytes)
    }
}

#[derive(Deserialize)]
struct DataNode {
    address: String,
    http_address: String,
    data_dir: PathBuf,
}

impl HdfsCluster {
    /// Starts a NameNode and so many DataNodes, and returns when files can be written.
    pub fn start(datanodes: usize) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/hdfs");
        let folder = tempfile::Builder::new().prefix("bmq-hdfs-").tempdir()?.keep();
        let owner = std::process::id().to_string();
        let count = datanodes.to_string();
        let arguments = ["up", "--json", "--datanodes", count.as_str(), "--owner", owner.as_str()];
        let state = run(&script, &folder, &arguments)?;
        let state = serde_json::from_str(&state).context("reading what scripts/hdfs printed")?;
        Ok(Self { script, folder, state, hurt: AtomicBool::new(false) })
    }

    /// The one cluster of a test binary, with everything running, for one test at a time. Four DataNodes, so that one
    /// may go.
    pub async fn shared() -> MutexGuard<'static, HdfsCluster> {
        static SHARED: OnceLock<Mutex<HdfsCluster>> = OnceLock::new();
        let started = tokio::task::spawn_blocking(|| {
            SHARED.get_or_init(|| Mutex::new(HdfsCluster::start(4).expect("HDFS starts")))
        });
        let cluster = started.await.expect("HDFS starts").lock().await;
        cluster.heal().expect("every daemon can be started again");
        cluster
    }

    /// The store URL of a root folder, such as `/bmq`.
    pub fn url(&self, root: &str) -> String {
        format!("{}{root}", self.state.uri)
    }

    pub fn kill_datanode(&self, index: usize) -> Result<()> {
        self.hurt(&["kill-datanode", &index.to_string()])
    }

    /// Sends SIGSTOP: connections stay open and nothing is answered.
    pub fn stop_datanode(&self, index: usize) -> Result<()> {
        self.hurt(&["stop-datanode", &index.to_string()])
    }

    pub fn continue_datanode(&self, index: usize) -> Result<()> {
        self.script(&["cont-datanode", &index.to_string()])
    }

    /// Starts a killed DataNode again, and returns when the NameNode has it back.
    pub fn start_datanode(&self, index: usize) -> Result<()> {
        self.script(&["start-datanode", &index.to_string()])
    }

    pub fn kill_namenode(&self) -> Result<()> {
        self.hurt(&["kill-namenode"])
    }

    pub fn stop_namenode(&self) -> Result<()> {
        self.hurt(&["stop-namenode"])
    }

    pub fn continue_namenode(&self) -> Result<()> {
        self.script(&["cont-namenode"])
    }

    /// Starts a killed NameNode again, and returns when files can be written.
    pub fn start_namenode(&self) -> Result<()> {
        self.script(&["start-namenode"])
    }

    /// Brings back whatever a test killed or stopped.
    pub fn heal(&self) -> Result<()> {
        if !self.hurt.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Continuing what runs does nothing; what was killed refuses, and is started by `up`.
        let _ = self.continue_namenode();
        for index in 0..self.state.datanodes.len() {
            let _ = self.continue_datanode(index);
        }
        self.script(&["up"])?;
        self.hurt.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The DataNodes that hold the last block of the file at this absolute path, the pipeline's order first to last.
    /// Works on open files.
    pub fn block_locations(&self, file: &str) -> Result<Vec<usize>> {
        Ok(self.last_block(file)?.datanodes)
    }

    /// The last block of the file at this absolute path. The lengths are read after one another, the NameNode's first.
    pub fn last_block(&self, file: &str) -> Result<LastBlock> {
        let answer = self.namenode("GET", &format!("/webhdfs/v1{file}?op=GET_BLOCK_LOCATIONS"))?;
        let last = &answer["LocatedBlocks"]["lastLocatedBlock"];
        let locations = last["locations"].as_array().with_context(|| format!("{file} has no block: {answer}"))?;
        let datanodes = locations.iter().map(|location| self.datanode_at(location["xferPort"].as_u64()));
        let datanodes = datanodes.collect::<Result<Vec<_>>>()?;
        let block = last["block"]["blockId"].as_u64().context("blockId is not a number")?;
        let known_bytes = last["block"]["numBytes"].as_u64().context("numBytes is not a number")?;
        let arrived = datanodes.iter().filter_map(|index| replica_being_written(&self.state.datanodes[*index], block));
        Ok(LastBlock { arrived_bytes: arrived.max(), known_bytes, datanodes })
    }

    /// The process of a DataNode, for faults that must not wait for the script.
    pub fn datanode_process(&self, index: usize) -> Result<Process> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.folder.join("cluster.json"))?)?;
        let pid = state["datanodes"][index]["pid"].as_u64().context("the DataNode was never started")?;
        Process::find(u32::try_from(pid)?)
    }

    /// `host:port` at which the NameNode answers over HTTP.
    pub fn namenode_http(&self) -> &str {
        &self.state.namenode.http_address
    }

    /// Whether there is a file or folder at this absolute path.
    pub fn exists(&self, path: &str) -> Result<bool> {
        let (parent, name) = path.rsplit_once('/').context("a path is absolute")?;
        let parent = if parent.is_empty() { "/" } else { parent };
        let answer = self.namenode("GET", &format!("/webhdfs/v1{parent}?op=LISTSTATUS"))?;
        let entries = answer["FileStatuses"]["FileStatus"].as_array().context("a listing is a list")?;
        Ok(entries.iter().any(|entry| entry["pathSuffix"] == name))
    }

    /// Makes a folder whose files will be erasure-coded.
    pub fn make_erasure_coded(&self, folder: &str) -> Result<()> {
        self.namenode("PUT", &format!("/webhdfs/v1{folder}?op=MKDIRS&user.name=hdfs"))?;
        self.namenode("PUT", &format!("/webhdfs/v1{folder}?op=SETECPOLICY&ecpolicy=RS-6-3-1024k&user.name=hdfs"))?;
        Ok(())
    }

    /// How many files below this folder somebody holds open for writing, as the NameNode sees it.
    pub fn open_files(&self, folder: &str) -> Result<usize> {
        let target = format!("/fsck?ugi=hdfs&path={folder}&openforwrite=1&files=1");
        let report = http(&self.state.namenode.http_address, "GET", &target)?;
        ensure!(report.contains("Status:"), "the NameNode did not check {folder}: {report}");
        Ok(report.matches("OPENFORWRITE").count())
    }

    /// How often each DataNode has called fsync, up to a second ago.
    pub fn fsync_counts(&self) -> Result<Vec<u64>> {
        let count = |datanode: &DataNode| {
            let bean = self.bean(&datanode.http_address, "DataNode", "DataNodeActivity*")?;
            bean["FsyncCount"].as_u64().context("FsyncCount is not a number")
        };
        self.state.datanodes.iter().map(count).collect()
    }

    /// The ports on which DataNodes take data.
    pub fn data_ports(&self) -> Vec<u16> {
        self.state.datanodes.iter().map(|datanode| port(&datanode.address)).collect()
    }

    fn datanode_at(&self, xfer_port: Option<u64>) -> Result<usize> {
        let found = self.data_ports().iter().position(|port| Some(u64::from(*port)) == xfer_port);
        found.with_context(|| format!("no DataNode has port {xfer_port:?}"))
    }

    fn hurt(&self, arguments: &[&str]) -> Result<()> {
        self.hurt.store(true, Ordering::Relaxed);
        self.script(arguments)
    }

    fn script(&self, arguments: &[&str]) -> Result<()> {
        run(&self.script, &self.folder, arguments).map(drop)
    }

    fn namenode(&self, method: &str, target: &str) -> Result<Value> {
        json(&http(&self.state.namenode.http_address, method, target)?)
    }

    fn bean(&self, address: &str, service: &str, name: &str) -> Result<Value> {
        let target = format!("/jmx?qry=Hadoop:service={service},name={name}");
        let mut answer = json(&http(address, "GET", &target)?)?;
        ensure!(answer["beans"][0].is_object(), "{address} has no bean {name}");
        Ok(answer["beans"][0].take())
    }
}

impl Drop for HdfsCluster {
    fn drop(&mut self) {
        if let Err(error) = self.script(&["down", "--delete"]) {
            eprintln!("HDFS in {} is left to its guard: {error:#}", self.folder.display());
        }
    }
}

/// The length of a replica that this DataNode is writing, as its own disk shows it.
fn replica_being_written(datanode: &DataNode, block: u64) -> Option<u64> {
    let pools = std::fs::read_dir(datanode.data_dir.join("current")).ok()?;
    let replicas = pools.flatten().map(|pool| pool.path().join(format!("current/rbw/blk_{block}")));
    replicas.filter_map(|replica| Some(replica.metadata().ok()?.len())).max()
}

/// Runs a command of the script, and returns what it printed.
fn run(script: &Path, folder: &Path, arguments: &[&str]) -> Result<String> {
    let (command, rest) = arguments.split_first().context("no command")?;
    let output = Command::new(script).arg(command).arg("--dir").arg(folder).args(rest).output();
    let output = output.with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("scripts/hdfs {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("scripts/hdfs prints host:port")
}

/// The answer to one HTTP request.
fn http(address: &str, method: &str, target: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the HTTP header")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{method} {target} answered {status}: {body}");
    Ok(body.to_owned())
}

/// An answer in JSON; some calls answer nothing.
fn json(body: &str) -> Result<Value> {
    if body.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(body)?) }
}

/// This process's TCP connections to these local ports, in any state, by the kernel's number of the socket.
pub fn own_connections_to(ports: &[u16]) -> Result<HashMap<u64, u16>> {
    let own = own_sockets()?;
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let mut found = HashMap::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(remote), Some(inode)) = (fields.get(2), fields.get(9)) else { continue };
        let port = remote.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok());
        let (Some(port), Ok(inode)) = (port, inode.parse()) else { continue };
        if ports.contains(&port) && own.contains(&inode) {
            found.insert(inode, port);
        }
    }
    Ok(found)
}

fn own_sockets() -> Result<Vec<u64>> {
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        // A descriptor may be closed while the folder is read.
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let name = link.to_string_lossy();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        sockets.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(sockets)
}
