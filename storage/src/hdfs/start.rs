//! What the store asks of HDFS once, before anything relies on it: that it answers, that the root is there, and that
//! files in it can be synced. Says what to do when it cannot be used.

use hdfs_native::HdfsError;
use tracing::info;

use super::core::Core;
use super::failure::{Failure, with_causes};
use crate::StoreError;

/// The replication of the probe. It holds no data, so this costs nothing; erasure-coded files all report 1.
const PROBE_REPLICATION: u32 = 2;
/// Unfinished files this much older than the probe belong to processes that are gone.
const LEFT_BEHIND_MILLIS: u64 = 24 * 3_600_000;

/// Checks that the store can be used, and makes its folders.
pub(super) async fn prepare(core: &Core) -> Result<(), StoreError> {
    let made = core.make_folder(core.unfinished_folder()).await;
    made.map_err(|failure| explain(core, failure))?;
    let now_millis = probe(core).await?;
    let swept = sweep(core, now_millis).await.map_err(|failure| explain(core, failure))?;
    info!(url = core.config.url, swept, "HDFS store is ready");
    Ok(())
}

/// Creates an empty file, looks at it, and deletes it. Returns the NameNode's time.
async fn probe(core: &Core) -> Result<u64, StoreError> {
    let path = core.unfinished_file("probe");
    let mut open = core.janitor.open_file(path.clone());
    let client = core.clients.writing();
    let options = core.write_options().replication(PROBE_REPLICATION);
    let probed = core.call(async move {
        let writer = client.create(&path, options).await?;
        let status = client.get_file_info(&path).await?;
        // Without any data there is no pipeline to take down, so an open file can go as it is.
        client.delete(&path, false).await?;
        drop(writer);
        Ok(status)
    });
    let status = probed.await.map_err(|failure| explain(core, failure))?;
    open.leave();
    if status.replication != Some(PROBE_REPLICATION) {
        return Err(refuse(
            core,
            "the folder is erasure-coded, and such files cannot be synced: choose another root, or \
             run `hdfs ec -setPolicy -replicate` on this one",
        ));
    }
    Ok(status.modification_time)
}

/// Has unfinished files of processes long gone deleted.
async fn sweep(core: &Core, now_millis: u64) -> Result<usize, Failure> {
    let (client, folder) = (core.clients.reading.clone(), core.unfinished_folder());
    let found = core.call(async move { client.list_status(&folder, false).await }).await?;
    let left_behind = found.into_iter().filter(|file| file.modification_time + LEFT_BEHIND_MILLIS < now_millis);
    Ok(left_behind.map(|file| core.janitor.discard(file.path)).count())
}

fn explain(core: &Core, failure: Failure) -> StoreError {
    let advice = "is HDFS running, and is this the NameNode's RPC address (`fs.defaultFS` of its core-site.xml)?";
    match failure {
        Failure::Answered(error @ HdfsError::IOError(_)) => {
            refuse(core, &format!("it cannot be reached: {}; {advice}", with_causes(&error)))
        }
        Failure::Deadline(deadline) => refuse(core, &format!("no answer within {deadline:?}; {advice}")),
        other => other.at(&core.config.url, "connecting"),
    }
}

fn refuse(core: &Core, reason: &str) -> StoreError {
    StoreError::Refused { path: core.config.url.clone(), operation: "connecting", reason: reason.to_owned() }
}
