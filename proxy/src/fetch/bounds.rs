//! Where a partition begins and ends, for certain: the owner's word, and a linearizable read of the head that shows the
//! epoch under which the owner gave it. Both begin after the question came.

use std::sync::Arc;
use std::time::Duration;

use bmq_common::retry::with_deadline;
use bmq_common::{Backoff, Random};
use bmq_proto::broker::PartitionBounds;
use bmq_proto::meta::PartitionHead;
use bmq_proto::{Epoch, ErrorCode, ServiceError, TopicPartition};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::FetchConfig;
use crate::directory::{Directory, Route, RouteOwner, unknown_topic};
use crate::head_reads::HeadReads;

/// See the head of the file.
pub struct VerifiedBounds {
    directory: Arc<Directory>,
    heads: HeadReads,
    config: FetchConfig,
    random: Random,
}

impl VerifiedBounds {
    pub fn new(directory: Arc<Directory>, heads: HeadReads, config: FetchConfig, random: Random) -> Self {
        Self { directory, heads, config, random }
    }

    /// The bounds at some moment after this call; waits for an owner until `deadline`.
    pub async fn read(&self, partition: TopicPartition, deadline: Instant) -> Result<PartitionBounds, ServiceError> {
        self.read_with_head(partition, deadline).await.map(|(bounds, _)| bounds)
    }

    /// The bounds as [`Self::read`] gives them, and the head that verified them.
    pub async fn read_with_head(
        &self,
        partition: TopicPartition,
        deadline: Instant,
    ) -> Result<(PartitionBounds, Arc<PartitionHead>), ServiceError> {
        let mut patience = self.patience(partition, deadline);
        loop {
            let (_, owner) = patience.owner().await?;
            let call = owner.service.bounds(partition);
            let told = with_deadline("the broker", self.config.call_timeout.get(), call);
            let (told, head) = tokio::join!(told, self.heads.read(partition));
            match (told, head) {
                (Ok(Ok(bounds)), Ok(head)) if bounds.epoch == head.epoch => return Ok((bounds, head)),
                (Ok(Ok(_)), Ok(_)) => patience.pause("the partition is moving").await?,
                (Ok(Err(error)), _) | (_, Err(error)) => patience.pause_after(error).await?,
                (Err(late), _) => patience.pause(&late.to_string()).await?,
            }
        }
    }

    /// Has the directory learn the head as it is now.
    pub async fn refresh(&self, partition: TopicPartition) -> Result<(), ServiceError> {
        self.heads.read(partition).await.map(|_| ())
    }

    /// For a request that waits for a partition's owner.
    pub fn patience(&self, partition: TopicPartition, deadline: Instant) -> Patience {
        let (first, max) = (self.config.retry_first.get(), self.config.retry_max.get());
        let (route, backoff) = (self.directory.route(partition), Backoff::new(first, max));
        Patience { route, deadline, backoff, random: self.random.clone(), reason: None }
    }
}

/// Waits for owners and between tries, until a deadline.
pub struct Patience {
    route: watch::Receiver<Route>,
    deadline: Instant,
    backoff: Backoff,
    random: Random,
    reason: Option<String>,
}

impl Patience {
    /// When the waiting ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The route as it is now; `UnknownTopic` if the topic was deleted.
    pub fn route(&mut self) -> Result<Route, ServiceError> {
        let route = self.route.borrow_and_update().clone();
        if route.topic_gone { Err(unknown_topic("the topic was deleted".to_owned())) } else { Ok(route) }
    }

    /// The partition's owner and its epoch, as soon as there is one.
    pub async fn owner(&mut self) -> Result<(Epoch, RouteOwner), ServiceError> {
        loop {
            let route = self.route()?;
            if let Some(owner) = route.owner {
                return Ok((route.epoch, owner));
            }
            match tokio::time::timeout_at(self.deadline, self.route.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(self.give_up("the partition has no owner just now")),
            }
        }
    }

    /// Waits after a failure that another try may mend; returns other errors.
    pub async fn pause_after(&mut self, error: ServiceError) -> Result<(), ServiceError> {
        let may_mend = error.is_retriable() || error.code == ErrorCode::Fenced;
        if may_mend { self.pause(&error.message).await } else { Err(error) }
    }

    /// Waits until the route changes or the back-off has passed.
    pub async fn pause(&mut self, reason: &str) -> Result<(), ServiceError> {
        let until = Instant::now() + self.delay();
        if until >= self.deadline {
            return Err(self.give_up(reason));
        }
        self.reason = Some(reason.to_owned());
        let _ = tokio::time::timeout_at(until, self.route.changed()).await;
        Ok(())
    }

    fn delay(&mut self) -> Duration {
        self.backoff.next(&self.random)
    }

    fn give_up(&self, reason: &str) -> ServiceError {
        let text = match &self.reason {
            Some(earlier) if earlier != reason => format!("{reason} (before: {earlier})"),
            _ => reason.to_owned(),
        };
        ServiceError::not_applied(ErrorCode::Unavailable, text)
    }
}
