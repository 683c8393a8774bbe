//! Whatever comes in from outside gets a clear error; the process lives on, and its memory stays bounded.

#![allow(clippy::unwrap_used)] // Also in the functions that the tests share.

#[path = "bad_input/batches.rs"]
mod batches;
#[path = "bad_input/bytes.rs"]
mod bytes;
#[path = "bad_input/clients.rs"]
mod clients;
#[path = "bad_input/requests.rs"]
mod requests;
#[path = "bad_input/settings.rs"]
mod settings;

use anyhow::{Result, ensure};
use bmq_integration_tests::standalone::Standalone;
use bmq_proto::rpc::channel;
use bmq_proto::v1::messaging_client::MessagingClient;
use tempfile::TempDir;
use tonic::transport::Channel;

const TOPIC: &str = "events";

/// A process with a topic of two partitions.
struct Target {
    standalone: Standalone,
    _folder: TempDir,
}

impl Target {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let standalone = Standalone::start(&folder.path().join("data"), &[])?;
        standalone.bmq(&["topic", "create", TOPIC, "--partitions", "2"])?;
        Ok(Self { standalone, _folder: folder })
    }

    fn messaging(&self) -> Result<MessagingClient<Channel>> {
        Ok(MessagingClient::new(channel(&self.standalone.server)?))
    }

    /// It serves as ever, has not used more than so much memory at any time, and has not logged that it failed.
    fn assert_well(self, most_mib: u64) -> Result<()> {
        let topics = self.standalone.json(&["topic", "list", "-o", "json"])?;
        let is_there = topics["topics"].as_array().unwrap().iter().any(|topic| topic["name"] == TOPIC);
        ensure!(is_there, "{topics}");
        let (now, peak) = (self.standalone.resident_bytes()? >> 20, self.standalone.peak_resident_bytes()? >> 20);
        println!("{now} MiB in use, {peak} MiB at most");
        ensure!(peak <= most_mib, "{peak} MiB were in use, {most_mib} are enough");
        let log = self.standalone.log();
        ensure!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
        let (status, _) = self.standalone.interrupt()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}
