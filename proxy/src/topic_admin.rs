//! What users may change of topics, over whichever protocol they come.
//!
//! Everything is checked before the metadata service is asked, so that a dry run refuses what the real one would. The
//! topics that hold a service's own state are that service's to make and change: users are refused.

use std::time::Duration;

use bmq_common::Backoff;
use bmq_proto::coordinator::GROUPS_TOPIC;
use bmq_proto::meta::{ConfigChanges, CreateTopic, TopicRecord, TopicState, apply_config_changes};
use bmq_proto::topic_config::TopicSettings;
use bmq_proto::{ErrorCode, ServiceError, TopicId};
use tokio::time::Instant;

use crate::api::Api;
use crate::directory::{check_topic_name, unknown_topic};

/// The most partitions of one topic.
pub const MAX_PARTITIONS: u32 = 10_000;

/// The first and the longest pause before it is seen again whether a topic's deletion is complete.
const DELETION_FIRST: Duration = Duration::from_millis(20);
const DELETION_MAX: Duration = Duration::from_millis(500);

/// Whether something is done, or only checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Apply,
    ValidateOnly,
}

impl Mode {
    pub fn validate_only(only: bool) -> Self {
        if only { Mode::ValidateOnly } else { Mode::Apply }
    }
}

impl Api {
    /// The topic of that name as it is now; `UnknownTopic` also for one that is being deleted.
    pub async fn read_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        check_topic_name(name)?;
        match self.ask_meta(self.meta.topic(name)).await? {
            Some(topic) if topic.state == TopicState::Active => Ok(topic),
            Some(_) => Err(unknown_topic(format!("topic `{name}` is being deleted"))),
            None => Err(unknown_topic(format!("there is no topic `{name}`"))),
        }
    }

    /// Creates a topic; of one that is only validated the id is all zeros. Until `deadline` it is waited for that a
    /// topic of that name which is being deleted is gone.
    pub async fn create_topic(
        &self,
        request: CreateTopic,
        mode: Mode,
        deadline: Instant,
    ) -> Result<TopicRecord, ServiceError> {
        check_topic_name(&request.name)?;
        refuse_internal(&request.name)?;
        check_partitions(request.partitions)?;
        TopicSettings::parse(&request.config)?;
        if mode == Mode::ValidateOnly {
            return self.would_create(request).await;
        }
        let mut backoff = Backoff::new(DELETION_FIRST, DELETION_MAX);
        loop {
            let error = match self.ask_meta(self.meta.create_topic(request.clone())).await {
                Ok(topic) => {
                    self.directory.observe_topic(topic.clone());
                    return Ok(topic);
                }
                Err(error) => error,
            };
            let until = Instant::now() + backoff.next(&self.random);
            if error.code != ErrorCode::TopicExists
                || until >= deadline
                || !self.is_being_deleted(&request.name).await?
            {
                return Err(error);
            }
            tokio::time::sleep_until(until).await;
        }
    }

    async fn would_create(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        let present = self.ask_meta(self.meta.topic(&request.name)).await?;
        let CreateTopic { name, partitions, config } = request;
        if present.is_some_and(|topic| topic.state == TopicState::Active) {
            return Err(ServiceError::not_applied(ErrorCode::TopicExists, format!("topic `{name}` exists")));
        }
        Ok(TopicRecord { id: TopicId([0; 16]), name, partitions, config, state: TopicState::Active })
    }

    async fn is_being_deleted(&self, name: &str) -> Result<bool, ServiceError> {
        let present = self.ask_meta(self.meta.topic(name)).await?;
        Ok(present.is_none_or(|topic| topic.state == TopicState::Deleting))
    }

    /// Begins a topic's deletion.
    pub async fn delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        check_topic_name(name)?;
        refuse_internal(name)?;
        self.ask_meta(self.meta.delete_topic(name)).await
    }

    /// Changes settings; returns the topic as it is then, or would be.
    pub async fn alter_topic_config(
        &self,
        name: &str,
        changes: ConfigChanges,
        mode: Mode,
    ) -> Result<TopicRecord, ServiceError> {
        check_topic_name(name)?;
        refuse_internal(name)?;
        if mode == Mode::ValidateOnly {
            let topic = self.read_topic(name).await?;
            let config = apply_config_changes(&topic.config, &changes)?;
            return Ok(TopicRecord { config, ..topic });
        }
        let altered = self.ask_meta(self.meta.alter_topic_config(name, changes)).await?;
        self.directory.observe_topic(altered.clone());
        Ok(altered)
    }

    /// Makes a topic have `total` partitions, as many as now or more; returns it as it is then, or would be.
    pub async fn add_partitions(&self, name: &str, total: u32, mode: Mode) -> Result<TopicRecord, ServiceError> {
        check_topic_name(name)?;
        refuse_internal(name)?;
        check_partitions(total)?;
        if mode == Mode::ValidateOnly {
            let topic = self.read_topic(name).await?;
            if total < topic.partitions {
                let text = format!("topic `{name}` has {} partitions, which cannot become {total}", topic.partitions);
                return Err(invalid(text));
            }
            return Ok(TopicRecord { partitions: total, ..topic });
        }
        let grown = self.ask_meta(self.meta.add_partitions(name, total)).await?;
        self.directory.observe_topic(grown.clone());
        Ok(grown)
    }
}

/// `InvalidArgument` for the name of a topic that holds a service's state.
pub fn refuse_internal(name: &str) -> Result<(), ServiceError> {
    if name != GROUPS_TOPIC {
        return Ok(());
    }
    Err(invalid(format!("topic `{name}` is internal: the coordinators make it and nobody else may change it")))
}

/// `InvalidArgument` unless a topic may have so many partitions.
pub fn check_partitions(count: u32) -> Result<(), ServiceError> {
    if (1..=MAX_PARTITIONS).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("a topic has 1 to {MAX_PARTITIONS} partitions, not {count}")))
}

fn invalid(message: String) -> ServiceError {
    ServiceError::not_applied(ErrorCode::InvalidArgument, message)
}
