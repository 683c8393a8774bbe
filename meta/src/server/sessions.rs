//! Sessions and the controller's term, both bound to leases of the store.
//!
//! A session's id is its lease's. Its record stands under two keys: its node's, which a newer session of the node takes
//! over, and its own, which the newer session deletes: so an older incarnation notices at its next keep-alive.

use bmq_proto::meta::{OpenSession, SessionId, SessionRecord};
use bmq_proto::rpc::record::{StoredSession, TermRecord, encode_record};
use bmq_proto::{ServiceError, Term};

use super::attempts::{Attempts, Commit};
use super::{MetaServer, decode_optional};
use crate::keys;
use crate::store::{ErrorKind, Expected, LeaseId, MetaStoreError, Transaction, Versioned};
use crate::transition::session;
use crate::transition::term::{self, Acquire};

impl MetaServer {
    pub(super) async fn do_open_session(&self, request: OpenSession) -> Result<SessionId, ServiceError> {
        session::check(&request)?;
        let mut attempts = self.attempts("open session");
        // A lease of which the answer was lost holds no key and ends by itself.
        let lease = attempts.read(|| self.store.grant(request.time_to_live)).await?;
        let opened = session::open(&request, SessionId(lease.0))?;
        let key = keys::session(request.kind, request.node);
        loop {
            let read = attempts.get(&key).await?;
            let present: Option<StoredSession> = decode_optional(&key, read.as_ref())?;
            if present.as_ref() == Some(&opened) {
                return Ok(opened.id);
            }
            let transaction = replace_session(&key, read.as_ref(), present.as_ref(), &opened);
            if attempts.commit(transaction).await? == Commit::Done {
                tracing::info!(kind = ?request.kind, node = %request.node, session = opened.id.0, "session opened");
                if let Some(older) = present {
                    self.end_replaced(older.id).await;
                }
                return Ok(opened.id);
            }
        }
    }

    /// Ends the lease of a session that was replaced, and with it a term that it may hold. It would end by itself too:
    /// nobody can keep it alive any more.
    async fn end_replaced(&self, older: SessionId) {
        let mut attempts = self.attempts("end a replaced session");
        if let Err(error) = attempts.read(|| self.store.revoke(LeaseId(older.0))).await {
            tracing::warn!(session = older.0, %error, "a replaced session is left to expire");
        }
    }

    pub(super) async fn do_keep_alive(&self, session: SessionId) -> Result<(), ServiceError> {
        let mut attempts = self.attempts("keep alive");
        if find_session(&mut attempts, session).await?.is_none() {
            return Err(ended(session));
        }
        // A lease that has ended between is `LeaseGone`, which is `Fenced` to the caller.
        attempts.read(|| self.store.keep_alive(LeaseId(session.0))).await
    }

    pub(super) async fn do_close_session(&self, session: SessionId) -> Result<(), ServiceError> {
        // Only a lease with a session's record may be revoked: the id comes from outside.
        let mut attempts = self.attempts("close session");
        if find_session(&mut attempts, session).await?.is_none() {
            return Ok(());
        }
        attempts.read(|| self.store.revoke(LeaseId(session.0))).await
    }

    pub(super) async fn do_list_sessions(&self) -> Result<Vec<SessionRecord>, ServiceError> {
        let stored: Vec<StoredSession> = self.attempts("list sessions").list_records(keys::SESSIONS).await?;
        Ok(stored.into_iter().map(|stored| stored.session).collect())
    }

    pub(super) async fn do_acquire_term(&self, session: SessionId) -> Result<Term, ServiceError> {
        let mut attempts = self.attempts("acquire term");
        loop {
            let session_key = keys::session_by_id(session);
            let keys = [session_key.clone(), keys::TERM.to_owned(), keys::TERM_HOLDER.to_owned()];
            let read = attempts.get_many(&keys).await?;
            let asking: Option<StoredSession> = decode_optional(&session_key, read[0].as_ref())?;
            let newest: Option<TermRecord> = decode_optional(keys::TERM, read[1].as_ref())?;
            let holder: Option<TermRecord> = decode_optional(keys::TERM_HOLDER, read[2].as_ref())?;
            let acquired = term::acquire(newest, holder, session, asking.as_ref());
            let record = match acquired.map_err(|error| attempts.refusal(error))? {
                Acquire::Held(term) => return Ok(term),
                Acquire::Take(record) => record,
            };
            let unchanged = keys.into_iter().zip(&read);
            let transaction = unchanged
                .fold(Transaction::default(), |compares, (key, read)| {
                    compares.expect(key, Expected::unchanged(read.as_ref()))
                })
                .put(keys::TERM, encode_record(&record))
                .put_leased(keys::TERM_HOLDER, encode_record(&record), LeaseId(session.0));
            if attempts.commit(transaction).await? == Commit::Done {
                tracing::info!(term = %record.term, session = session.0, "controller term taken");
                return Ok(record.term);
            }
        }
    }
}

/// The session's record as long as it is the newest of its node.
async fn find_session(attempts: &mut Attempts<'_>, session: SessionId) -> Result<Option<StoredSession>, ServiceError> {
    let key = keys::session_by_id(session);
    let read = attempts.get(&key).await?;
    decode_optional(&key, read.as_ref())
}

fn replace_session(
    key: &str,
    read: Option<&Versioned>,
    present: Option<&StoredSession>,
    opened: &StoredSession,
) -> Transaction {
    let lease = LeaseId(opened.id.0);
    let mut transaction = Transaction::default()
        .expect(key, Expected::unchanged(read))
        .put_leased(key, encode_record(opened), lease)
        .put_leased(keys::session_by_id(opened.id), encode_record(opened), lease);
    if let Some(older) = present {
        transaction = transaction.delete(keys::session_by_id(older.id));
    }
    transaction
}

fn ended(session: SessionId) -> ServiceError {
    let message = format!("session {} has ended or was replaced", session.0);
    MetaStoreError::new(ErrorKind::LeaseGone, message).into()
}
