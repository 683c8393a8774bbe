//! A store in an etcd cluster.
//!
//! What etcd and its client do that shapes this file:
//! * without time-outs and HTTP/2 keep-alive a stopped etcd hangs calls and streams for ever;
//! * a transaction whose answer is missing may have been applied, or may be later: only a refusal is certain;
//! * streams never reconnect, so a keep-alive is a short stream of its own, and a watch ends with an error;
//! * an answer holds at most 4 MiB, so listings are paged, with smaller pages where values are large;
//! * without `require_leader` a member cut off from the others keeps watches open and says nothing.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, GetResponse, KeyValue, PutOptions,
    ResponseHeader, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchResponse, WatchStream,
};
use futures::{StreamExt, stream};
use tonic::Code;

use super::embedded::checked_time_to_live;
use super::{
    Entry, ErrorKind, Event, EventStream, Events, Expected, LeaseId, ListRequest, MAX_OPERATIONS, MAX_PAGE, MetaStore,
    MetaStoreError, Order, Outcome, Page, Revision, Transaction, Version, Versioned, prefix_end,
};

/// etcd ends connections that ping more often than every 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of one message of a watch: etcd sends up to a thousand revisions at once to a watch that is behind.
const MAX_WATCH_MESSAGE: usize = 64 * 1024 * 1024;

/// How to reach an etcd cluster.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// Stands before every key; ASCII.
    pub prefix: String,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
}

/// A store in an etcd cluster.
pub struct EtcdStore {
    client: Client,
    prefix: String,
    request_timeout: Duration,
}

impl EtcdStore {
    /// Connects, and reads once to see that the cluster answers.
    pub async fn connect(options: EtcdOptions) -> Result<Self, MetaStoreError> {
        let connect = ConnectOptions::new()
            .with_connect_timeout(options.connect_timeout)
            .with_timeout(options.request_timeout)
            .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = Client::connect(&options.endpoints, Some(connect)).await.map_err(failed_read)?;
        let store = Self { client, prefix: options.prefix, request_timeout: options.request_timeout };
        store.get("").await?;
        Ok(store)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Runs a call under this store's own deadline too: the client's covers only the way to the first answer.
    async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<Result<T, etcd_client::Error>, MetaStoreError> {
        let late = |_| MetaStoreError::new(ErrorKind::Timeout, "etcd did not answer in time");
        tokio::time::timeout(self.request_timeout, call).await.map_err(late)
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, MetaStoreError> {
        self.timed(call).await?.map_err(failed_read)
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, MetaStoreError> {
        let Versioned { value, version } = versioned(found)?;
        Ok(Entry { key: self.relative(found.key())?, value, version })
    }

    fn relative(&self, key: &[u8]) -> Result<String, MetaStoreError> {
        let text = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.prefix));
        let foreign = || MetaStoreError::new(ErrorKind::Damaged, format!("etcd answered with the key {key:02x?}"));
        text.map(str::to_owned).ok_or_else(foreign)
    }

    /// One request for a page; halves the page until it fits into an answer.
    async fn get_page(&self, request: &ListRequest) -> Result<GetResponse, MetaStoreError> {
        let order = match request.order {
            Order::Ascending => SortOrder::Ascend,
            Order::Descending => SortOrder::Descend,
        };
        let mut limit = request.limit.clamp(1, MAX_PAGE);
        loop {
            let mut options = GetOptions::new()
                .with_range(self.full(&request.end))
                .with_sort(SortTarget::Key, order)
                .with_limit(i64::try_from(limit).expect("a page is small"));
            if let Some(at) = request.at {
                options = options.with_revision(signed(at.0)?);
            }
            let mut client = self.client.kv_client();
            match self.timed(client.get(self.full(&request.start), Some(options))).await? {
                Err(error) if limit > 1 && is_too_large(&error) => limit /= 2,
                answer => return answer.map_err(failed_read),
            }
        }
    }
}

#[async_trait]
impl MetaStore for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, MetaStoreError> {
        let answer = self.read(self.client.kv_client().get(self.full(key), None)).await?;
        answer.kvs().first().map(versioned).transpose()
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, MetaStoreError> {
        if keys.len() > MAX_OPERATIONS {
            return Err(MetaStoreError::invalid(format!(
                "{} keys in one read, of at most {MAX_OPERATIONS}",
                keys.len()
            )));
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let gets: Vec<_> = keys.iter().map(|key| TxnOp::get(self.full(key), None)).collect();
        let answer = self.read(self.client.kv_client().txn(Txn::new().and_then(gets))).await?;
        let value = |response: TxnOpResponse| match response {
            TxnOpResponse::Get(found) => found.kvs().first().map(versioned).transpose(),
            _ => Err(MetaStoreError::new(ErrorKind::Damaged, "etcd did not answer a get with a get")),
        };
        let values: Vec<_> = answer.op_responses().into_iter().map(value).collect::<Result<_, _>>()?;
        if values.len() != keys.len() {
            return Err(MetaStoreError::new(ErrorKind::Damaged, "etcd answered another number of keys"));
        }
        Ok(values)
    }

    async fn list(&self, request: ListRequest) -> Result<Page, MetaStoreError> {
        if request.start >= request.end {
            let answer = self.read(self.client.kv_client().get(self.full(""), None)).await?;
            let revision = request.at.map_or_else(|| revision(answer.header()), Ok)?;
            return Ok(Page { entries: Vec::new(), revision, more: false });
        }
        let answer = self.get_page(&request).await?;
        let entries = answer.kvs().iter().map(|found| self.entry(found)).collect::<Result<_, _>>()?;
        // The header tells the newest revision, also when an older one was asked for.
        let revision = request.at.map_or_else(|| revision(answer.header()), Ok)?;
        Ok(Page { entries, revision, more: answer.more() })
    }

    async fn transact(&self, transaction: Transaction) -> Result<Outcome, MetaStoreError> {
        transaction.validate()?;
        let mut compares = Vec::with_capacity(transaction.compares.len());
        for compare in &transaction.compares {
            let key = self.full(&compare.key);
            compares.push(match compare.expected {
                Expected::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
                Expected::Version(version) => Compare::mod_revision(key, CompareOp::Equal, signed(version.0)?),
            });
        }
        let mut changes = Vec::with_capacity(transaction.puts.len() + transaction.deletes.len());
        for put in &transaction.puts {
            let lease = put.lease.map(|lease| signed(lease.0)).transpose()?;
            let options = lease.map(|lease| PutOptions::new().with_lease(lease));
            changes.push(TxnOp::put(self.full(&put.key), put.value.to_vec(), options));
        }
        changes.extend(transaction.deletes.iter().map(|key| TxnOp::delete(self.full(key), None)));
        let txn = Txn::new().when(compares).and_then(changes);
        let answer = self.timed(self.client.kv_client().txn(txn)).await.map_err(MetaStoreError::maybe_applied)?;
        let answer = answer.map_err(failed_write)?;
        if !answer.succeeded() {
            return Ok(Outcome::Conflict);
        }
        Ok(Outcome::Committed(revision(answer.header())?))
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<EventStream, MetaStoreError> {
        let start = self.full(prefix);
        let options = WatchOptions::new()
            .with_range(prefix_end(&start))
            .with_start_revision(signed(from.0)?)
            .with_progress_notify();
        let mut client = self.client.watch_client().max_decoding_message_size(MAX_WATCH_MESSAGE);
        let stream = self.read(client.watch(start, Some(options))).await?;
        let follower = Follower { stream, prefix: self.prefix.clone(), ended: false };
        Ok(stream::unfold(follower, Follower::step).boxed())
    }

    async fn grant(&self, time_to_live: Duration) -> Result<LeaseId, MetaStoreError> {
        let seconds = signed(checked_time_to_live(time_to_live)?.as_secs())?;
        let mut client = self.client.lease_client();
        let granted = self.timed(client.grant(seconds, None)).await.map_err(MetaStoreError::maybe_applied)?;
        Ok(LeaseId(unsigned(granted.map_err(failed_write)?.id())?))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        let mut client = self.client.lease_client();
        // Opening the stream sends one keep-alive and reads its answer; the client refuses a time to live of 0.
        match self.timed(client.keep_alive(signed(lease.0)?)).await? {
            Ok(_stream) => Ok(()),
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => {
                Err(MetaStoreError::new(ErrorKind::LeaseGone, format!("lease {} has ended", lease.0)))
            }
            Err(error) => Err(failed_read(error)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), MetaStoreError> {
        let mut client = self.client.lease_client();
        let revoked = self.timed(client.revoke(signed(lease.0)?)).await.map_err(MetaStoreError::maybe_applied)?;
        match revoked.map_err(failed_write) {
            Err(error) if error.kind == ErrorKind::LeaseGone => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// One open watch.
struct Follower {
    stream: WatchStream,
    prefix: String,
    ended: bool,
}

impl Follower {
    async fn step(mut self) -> Option<(Result<Events, MetaStoreError>, Self)> {
        if self.ended {
            return None;
        }
        match self.read().await {
            Ok(events) => Some((Ok(events), self)),
            Err(error) => {
                self.ended = true;
                Some((Err(error), self))
            }
        }
    }

    async fn read(&mut self) -> Result<Events, MetaStoreError> {
        loop {
            let ended = || MetaStoreError::new(ErrorKind::Unavailable, "etcd ended the watch");
            let message = self.stream.message().await.map_err(failed_read)?.ok_or_else(ended)?;
            if message.canceled() {
                return Err(canceled(&message));
            }
            if !message.created() {
                return self.events(&message);
            }
        }
    }

    fn events(&self, message: &WatchResponse) -> Result<Events, MetaStoreError> {
        let mut events = Vec::with_capacity(message.events().len());
        for event in message.events() {
            let damaged = || MetaStoreError::new(ErrorKind::Damaged, "etcd sent an event without a key of ours");
            let found = event.kv().ok_or_else(damaged)?;
            let key = std::str::from_utf8(found.key()).ok().and_then(|key| key.strip_prefix(&self.prefix));
            let key = key.ok_or_else(damaged)?.to_owned();
            events.push(match event.event_type() {
                EventType::Put => {
                    let Versioned { value, version } = versioned(found)?;
                    Event::Put(Entry { key, value, version })
                }
                EventType::Delete => Event::Delete { key },
            });
        }
        Ok(Events { revision: told_up_to(message)?, events })
    }
}

/// How far a message goes: to its last event, or, if it has none and only tells progress, to its header's revision. The
/// header of a message with events may be ahead of them.
fn told_up_to(message: &WatchResponse) -> Result<Revision, MetaStoreError> {
    match message.events().last().and_then(etcd_client::Event::kv) {
        Some(last) => Ok(Revision(unsigned(last.mod_revision())?)),
        None => revision(message.header()),
    }
}

fn canceled(message: &WatchResponse) -> MetaStoreError {
    if message.compact_revision() > 0 {
        let text = format!("etcd keeps no events before revision {}", message.compact_revision());
        return MetaStoreError::new(ErrorKind::Compacted, text);
    }
    let reason = message.cancel_reason();
    MetaStoreError::new(ErrorKind::Unavailable, format!("etcd canceled the watch: {reason}"))
}

fn versioned(found: &KeyValue) -> Result<Versioned, MetaStoreError> {
    let version = Version(unsigned(found.mod_revision())?);
    Ok(Versioned { value: Bytes::copy_from_slice(found.value()), version })
}

fn revision(header: Option<&ResponseHeader>) -> Result<Revision, MetaStoreError> {
    let missing = || MetaStoreError::new(ErrorKind::Damaged, "etcd answered without a header");
    Ok(Revision(unsigned(header.ok_or_else(missing)?.revision())?))
}

fn signed(number: u64) -> Result<i64, MetaStoreError> {
    i64::try_from(number).map_err(|_| MetaStoreError::invalid(format!("{number} is no number of etcd's")))
}

fn unsigned(number: i64) -> Result<u64, MetaStoreError> {
    let negative = |_| MetaStoreError::new(ErrorKind::Damaged, format!("etcd answered with the number {number}"));
    u64::try_from(number).map_err(negative)
}

/// Whether the client refused an answer for its size.
fn is_too_large(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() == Code::OutOfRange && status.message().contains("message length too large"))
}

fn failed_read(error: etcd_client::Error) -> MetaStoreError {
    MetaStoreError::new(kind(&error), "etcd failed").caused_by(error)
}

/// Only a refusal by the server itself, before it did anything, is certain.
fn failed_write(error: etcd_client::Error) -> MetaStoreError {
    let refused = matches!(&error, etcd_client::Error::GRpcStatus(status) if is_refusal(status.code()));
    let failed = failed_read(error);
    if refused { failed } else { failed.maybe_applied() }
}

fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

fn kind(error: &etcd_client::Error) -> ErrorKind {
    let etcd_client::Error::GRpcStatus(status) = error else { return ErrorKind::Unavailable };
    let says = |text: &str| status.message().contains(text);
    match status.code() {
        Code::NotFound if says("lease not found") => ErrorKind::LeaseGone,
        Code::OutOfRange if says("compacted") => ErrorKind::Compacted,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}
