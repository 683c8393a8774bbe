//! How many partitions each topic has: asked once, and again when the server says that it was not so.

use std::collections::HashMap;
use std::sync::Arc;

use bmq_proto::ErrorCode;
use parking_lot::Mutex;

use crate::{Admin, Error};

/// The topics that a producer has written to. Clones share them.
#[derive(Clone)]
pub(super) struct Topics {
    admin: Admin,
    known: Arc<Mutex<HashMap<Arc<str>, u32>>>,
}

impl Topics {
    pub fn new(admin: Admin) -> Self {
        Self { admin, known: Arc::default() }
    }

    /// The topic's name, shared by all its records, and how many partitions it has. `UnknownTopic` if there is none.
    pub async fn partition_count(&self, topic: &str) -> Result<(Arc<str>, u32), Error> {
        if let Some((name, count)) = self.known.lock().get_key_value(topic) {
            return Ok((Arc::clone(name), *count));
        }
        let described = self.admin.describe_topic(topic).await?;
        let count = described.topic.partitions;
        if count == 0 || i32::try_from(count).is_err() {
            let text = format!("the server says that topic {topic} has {count} partitions");
            return Err(Error::protocol(text).of_a_read());
        }
        if described.topic.deleting {
            return Err(Error::not_applied(ErrorCode::UnknownTopic, format!("topic {topic} is being deleted")));
        }
        let mut known = self.known.lock();
        // Another task may have asked at the same time.
        let name = known.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name));
        known.insert(Arc::clone(&name), count);
        Ok((name, count))
    }

    /// Asks again before the next record.
    pub fn forget(&self, topic: &str) {
        self.known.lock().remove(topic);
    }
}
