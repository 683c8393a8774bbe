//! The load as a process, and what its journal tells while it runs.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bmq_integration_tests::ack_journal::{Entry, JournalReader};
use bmq_integration_tests::cluster::wait_for;
use bmq_integration_tests::load::LoadPlan;

/// For the first line of the journal.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Longer than a record may be without an answer.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The running load. It is killed with its value, and stops by itself when this process ends.
pub struct LoadProcess {
    child: Child,
    journal: JournalReader,
    entries: Vec<Entry>,
    /// When the newest record of each partition that has been acknowledged was sent.
    acked_up_to: Vec<i64>,
}

impl LoadProcess {
    pub fn start(plan: &LoadPlan) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_load_client")).stdin(Stdio::piped()).spawn()?;
        let stdin = child.stdin.as_mut().context("the input is piped")?;
        writeln!(stdin, "{}", serde_json::to_string(plan)?)?;
        let exists = || Ok(plan.journal.exists().then_some(()));
        wait_for("the journal", START_PATIENCE, exists)?;
        let journal = JournalReader::open(&plan.journal)?;
        let acked_up_to = vec![i64::MIN; plan.partitions as usize];
        Ok(Self { child, journal, entries: Vec::new(), acked_up_to })
    }

    /// Partitions of which no record sent after `at` has been acknowledged yet.
    pub fn silent_since(&mut self, at: i64) -> Result<Vec<usize>> {
        self.read_new()?;
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the load ended with {ended:?}");
        let silent = self.acked_up_to.iter().enumerate().filter(|(_, sent_at)| **sent_at <= at);
        Ok(silent.map(|(partition, _)| partition).collect())
    }

    /// Has it stop sending, waits until every record has its answer, and returns everything it was told.
    pub fn finish(mut self) -> Result<Vec<Entry>> {
        drop(self.child.stdin.take());
        let status = wait_for("the load to end", STOP_PATIENCE, || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "the load ended with {status}");
        self.read_new()?;
        Ok(std::mem::take(&mut self.entries))
    }

    fn read_new(&mut self) -> Result<()> {
        for entry in self.journal.read_new()? {
            if let Entry::Acked { id, sent_at, .. } = entry {
                let newest = &mut self.acked_up_to[id.partition as usize];
                *newest = sent_at.max(*newest);
            }
            self.entries.push(entry);
        }
        Ok(())
    }
}

impl Drop for LoadProcess {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
