//! Topics: creation, the delete marker, the purge, intents, and producer ids.

use std::collections::{BTreeMap, BTreeSet};

use bmq_proto::meta::{ConfigChanges, CreateTopic, Intent, TopicRecord};
use bmq_proto::rpc::record::{CounterRecord, TermRecord, encode_record};
use bmq_proto::{ErrorCode, NodeId, ServiceError, Term, TopicId, TopicPartition};

use super::attempts::{Attempts, Commit};
use super::{MetaServer, decode, decode_optional};
use crate::keys;
use crate::store::{Expected, ListRequest, Transaction, Versioned};
use crate::transition::{producer_id, term, topic};

/// Intents of one transaction: each may need a compare of its topic too.
const INTENTS_PER_TRANSACTION: usize = 48;
/// Records that one step of a purge removes.
const PURGE_STEP: usize = 90;

/// A topic's record and the compare that it still stands.
struct FoundTopic {
    key: String,
    read: Option<Versioned>,
    record: Option<TopicRecord>,
}

impl MetaServer {
    pub(super) async fn do_create_topic(&self, request: CreateTopic) -> Result<TopicRecord, ServiceError> {
        topic::check_name(&request.name)?;
        let mut attempts = self.attempts("create topic");
        let mut id = [0; 16];
        self.random.fill(&mut id);
        let id = TopicId(id);
        loop {
            let found = find_by_name(&mut attempts, &request.name).await?;
            let created =
                topic::create(found.record.as_ref(), &request, id).map_err(|error| attempts.refusal(error))?;
            if found.record.is_some() {
                return Ok(created);
            }
            let transaction = Transaction::default()
                .expect(&found.key, Expected::Absent)
                .put(&found.key, encode_record(&created))
                .put(keys::topic_name(id), created.name.clone());
            if attempts.commit(transaction).await? == Commit::Done {
                tracing::info!(topic = created.name, id = %id, partitions = created.partitions, "topic created");
                return Ok(created);
            }
        }
    }

    pub(super) async fn do_delete_topic(&self, name: &str) -> Result<TopicRecord, ServiceError> {
        self.change_topic("delete topic", name, |present| topic::delete(present, name)).await
    }

    pub(super) async fn do_alter_topic_config(
        &self,
        name: &str,
        changes: &ConfigChanges,
    ) -> Result<TopicRecord, ServiceError> {
        self.change_topic("alter topic", name, |present| topic::alter_config(present, name, changes)).await
    }

    pub(super) async fn do_add_partitions(&self, name: &str, total: u32) -> Result<TopicRecord, ServiceError> {
        self.change_topic("add partitions", name, |present| topic::add_partitions(present, name, total)).await
    }

    /// Replaces a topic's record by what `change` makes of it; one that it leaves as it is counts as done.
    async fn change_topic(
        &self,
        call: &'static str,
        name: &str,
        change: impl Fn(Option<&TopicRecord>) -> Result<TopicRecord, ServiceError>,
    ) -> Result<TopicRecord, ServiceError> {
        topic::check_name(name)?;
        let mut attempts = self.attempts(call);
        loop {
            let found = find_by_name(&mut attempts, name).await?;
            let changed = change(found.record.as_ref()).map_err(|error| attempts.refusal(error))?;
            if found.record.as_ref() == Some(&changed) {
                return Ok(changed);
            }
            let transaction = Transaction::default()
                .expect(&found.key, Expected::unchanged(found.read.as_ref()))
                .put(&found.key, encode_record(&changed));
            if attempts.commit(transaction).await? == Commit::Done {
                let TopicRecord { id, partitions, config, state, .. } = &changed;
                tracing::info!(call, topic = name, %id, partitions, ?config, ?state, "topic changed");
                return Ok(changed);
            }
        }
    }

    pub(super) async fn do_topic(&self, name: &str) -> Result<Option<TopicRecord>, ServiceError> {
        topic::check_name(name)?;
        Ok(find_by_name(&mut self.attempts("topic"), name).await?.record)
    }

    pub(super) async fn do_purge_topic(&self, term: Term, topic: TopicId) -> Result<bool, ServiceError> {
        let mut attempts = self.attempts("purge topic");
        loop {
            let guard = under_term(&mut attempts, term).await?;
            let found = find_by_id(&mut attempts, topic).await?;
            topic::check_purge(found.record.as_ref()).map_err(|error| attempts.refusal(error))?;
            let mut transaction = guard.expect(&found.key, Expected::unchanged(found.read.as_ref()));
            let leftovers = leftovers(&mut attempts, topic).await?;
            let last_step = leftovers.is_empty();
            if last_step && found.record.is_none() {
                return Ok(true);
            }
            transaction.deletes = leftovers;
            if last_step {
                transaction = transaction.delete(found.key).delete(keys::topic_name(topic));
            }
            if attempts.commit(transaction).await? == Commit::Done {
                return Ok(last_step);
            }
        }
    }

    pub(super) async fn do_set_intents(
        &self,
        term: Term,
        intents: Vec<(TopicPartition, Option<NodeId>)>,
    ) -> Result<(), ServiceError> {
        let mut attempts = self.attempts("set intents");
        // The last word on a partition counts, also across the transactions.
        let intents: Vec<_> = intents.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect();
        for part in intents.chunks(INTENTS_PER_TRANSACTION) {
            loop {
                let transaction = plan_intents(&mut attempts, term, part).await?;
                if attempts.commit(transaction).await? == Commit::Done {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn do_allocate_producer_ids(&self, count: u32) -> Result<u64, ServiceError> {
        let mut attempts = self.attempts("allocate producer ids");
        loop {
            let read = attempts.get(keys::PRODUCER_IDS).await?;
            let present: Option<CounterRecord> = decode_optional(keys::PRODUCER_IDS, read.as_ref())?;
            let range = producer_id::allocate(present, count).map_err(|error| attempts.refusal(error))?;
            let transaction = Transaction::default()
                .expect(keys::PRODUCER_IDS, Expected::unchanged(read.as_ref()))
                .put(keys::PRODUCER_IDS, encode_record(&CounterRecord { next: range.end }));
            // After an unclear try another range is taken: ids are plenty.
            if attempts.commit(transaction).await? == Commit::Done {
                return Ok(range.start);
            }
        }
    }
}

/// The compare that `term` is the newest.
async fn under_term(attempts: &mut Attempts<'_>, term: Term) -> Result<Transaction, ServiceError> {
    let read = attempts.get(keys::TERM).await?;
    let newest: Option<TermRecord> = decode_optional(keys::TERM, read.as_ref())?;
    term::check(newest, term).map_err(|error| attempts.refusal(error))?;
    Ok(Transaction::default().expect(keys::TERM, Expected::unchanged(read.as_ref())))
}

async fn plan_intents(
    attempts: &mut Attempts<'_>,
    term: Term,
    intents: &[(TopicPartition, Option<NodeId>)],
) -> Result<Transaction, ServiceError> {
    let mut transaction = under_term(attempts, term).await?;
    let wanted: BTreeSet<_> = intents.iter().filter(|it| it.1.is_some()).map(|it| it.0.topic).collect();
    let mut topics = BTreeMap::new();
    for id in wanted {
        let found = find_by_id(attempts, id).await?;
        transaction = transaction.expect(&found.key, Expected::unchanged(found.read.as_ref()));
        topics.insert(id, found.record);
    }
    let keys: Vec<_> = intents.iter().map(|(partition, _)| keys::intent(*partition)).collect();
    let read = attempts.get_many(&keys).await?;
    for (((partition, node), key), read) in intents.iter().zip(keys).zip(&read) {
        let present = topics.get(&partition.topic).and_then(Option::as_ref);
        topic::check_intent(present, *partition, *node).map_err(|error| attempts.refusal(error))?;
        // Compared and always written, so that an earlier try that was given up cannot apply over this one.
        transaction = transaction.expect(&key, Expected::unchanged(read.as_ref()));
        transaction = match node {
            Some(node) => transaction.put(key, encode_record(&Intent { node: *node, term })),
            None => transaction.delete(key),
        };
    }
    Ok(transaction)
}

async fn find_by_name(attempts: &mut Attempts<'_>, name: &str) -> Result<FoundTopic, ServiceError> {
    let key = keys::topic(name);
    let read = attempts.get(&key).await?;
    let record = decode_optional(&key, read.as_ref())?;
    Ok(FoundTopic { key, read, record })
}

/// The topic with this id. Without one the compare is that its id still has no name.
async fn find_by_id(attempts: &mut Attempts<'_>, topic: TopicId) -> Result<FoundTopic, ServiceError> {
    let name_key = keys::topic_name(topic);
    let Some(name) = attempts.get(&name_key).await? else {
        return Ok(FoundTopic { key: name_key, read: None, record: None });
    };
    let damaged =
        || ServiceError::not_applied(ErrorCode::Storage, format!("`{name_key}` does not hold a topic's name"));
    let key = keys::topic(std::str::from_utf8(&name.value).map_err(|_| damaged())?);
    let read = attempts.get(&key).await?;
    let record: Option<TopicRecord> = read.as_ref().map(|found| decode(&key, &found.value)).transpose()?;
    if record.as_ref().is_some_and(|record| record.id != topic) {
        return Err(damaged());
    }
    Ok(FoundTopic { key, read, record })
}

/// Some keys of the first kind of record of which the topic's partitions still have any.
async fn leftovers(attempts: &mut Attempts<'_>, topic: TopicId) -> Result<Vec<String>, ServiceError> {
    for prefix in keys::partition_prefixes(topic) {
        let request = ListRequest { limit: PURGE_STEP, ..ListRequest::prefix(&prefix) };
        let entries = attempts.list_page(request).await?;
        if !entries.is_empty() {
            return Ok(entries.into_iter().map(|entry| entry.key).collect());
        }
    }
    Ok(Vec::new())
}
