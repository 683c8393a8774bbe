//! A whole cluster: real etcd, real HDFS, and every bmq process over them.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::bmq_cluster::{BmqCluster, BmqPlan};
use crate::etcd_cluster::EtcdCluster;
use crate::hdfs_cluster::HdfsCluster;

/// The store's folder on HDFS.
pub const ROOT: &str = "/bmq";

/// What a test wants.
pub struct ClusterPlan {
    pub datanodes: usize,
    pub brokers: u32,
    pub proxies: u32,
    /// Settings as `--set` takes them.
    pub settings: Vec<String>,
}

/// The running cluster. What comes first here ends first.
pub struct Cluster {
    pub bmq: BmqCluster,
    pub hdfs: HdfsCluster,
    pub etcd: EtcdCluster,
    plan: ClusterPlan,
    starts: u32,
    folder: TempDir,
}

impl Cluster {
    pub fn start(plan: ClusterPlan) -> Result<Self> {
        let etcd = EtcdCluster::start()?;
        let hdfs = HdfsCluster::start(plan.datanodes)?;
        let folder = tempfile::Builder::new().prefix("bmq-cluster-").tempdir()?;
        let bmq = start_bmq(&plan, &etcd, &hdfs, folder.path(), 0)?;
        Ok(Self { bmq, hdfs, etcd, plan, starts: 1, folder })
    }

    /// A folder for what a test writes itself.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills every bmq process with SIGKILL, and starts all of them anew over the same etcd and HDFS.
    pub fn kill_and_start_bmq(&mut self) -> Result<()> {
        self.bmq.kill_all()?;
        self.bmq = start_bmq(&self.plan, &self.etcd, &self.hdfs, self.folder.path(), self.starts)?;
        self.starts += 1;
        Ok(())
    }

    /// Keeps settings and logs after the end, and says where.
    pub fn keep_logs(&mut self) {
        self.folder.disable_cleanup(true);
        eprintln!("logs are kept in {}", self.folder.path().display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_logs();
        }
    }
}

fn start_bmq(
    plan: &ClusterPlan,
    etcd: &EtcdCluster,
    hdfs: &HdfsCluster,
    folder: &Path,
    start: u32,
) -> Result<BmqCluster> {
    let plan = BmqPlan {
        brokers: plan.brokers,
        proxies: plan.proxies,
        etcd: etcd.endpoint().to_owned(),
        store: hdfs.url(ROOT),
        folder: folder.join(format!("bmq-{start}")),
        settings: plan.settings.clone(),
    };
    let cluster = BmqCluster::start(&plan);
    if cluster.is_err() {
        print_logs(&plan.folder);
    }
    cluster
}

fn print_logs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            eprintln!("{}:\n{}", entry.path().display(), std::fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }
}

/// The runtime on which tests of whole clusters, which block otherwise, make their few asynchronous calls.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime can be made"))
}

/// Looks again and again until it finds something.
pub fn wait_for<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
