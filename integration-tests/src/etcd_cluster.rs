//! Real etcd for tests, started by `scripts/etcd`: one member. It ends with its value, and in any case with the test's
//! process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A running etcd.
pub struct EtcdCluster {
    folder: PathBuf,
    state: State,
}

/// The part of the script's `cluster.json` that does not change while it runs.
#[derive(Deserialize)]
struct State {
    endpoints: Vec<String>,
}

impl EtcdCluster {
    /// Starts it, and returns when it is healthy.
    pub fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("bmq-etcd-").tempdir()?.keep();
        let owner = std::process::id().to_string();
        let state = script(&folder, &["up", "--json", "--owner", &owner])?;
        let state = serde_json::from_str(&state).context("reading what scripts/etcd printed")?;
        Ok(Self { folder, state })
    }

    /// `host:port` of its member.
    pub fn endpoint(&self) -> &str {
        &self.state.endpoints[0]
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        if let Err(error) = script(&self.folder, &["down", "--delete"]) {
            eprintln!("etcd in {} is left to its guard: {error:#}", self.folder.display());
        }
    }
}

fn script(folder: &Path, arguments: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/etcd");
    let output = Command::new(&script).args(arguments).arg("--dir").arg(folder).output();
    let output = output.with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("scripts/etcd {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
