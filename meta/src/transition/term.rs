//! The controller's term: who holds it, and who may write under it.

use bmq_proto::meta::{NodeKind, SessionId};
use bmq_proto::rpc::record::{StoredSession, TermRecord};
use bmq_proto::{ErrorCode, ServiceError, Term};

use super::refuse;

/// What acquiring the term comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquire {
    /// The session holds it already.
    Held(Term),
    /// Both term records become this one, the holder's under the session's lease.
    Take(TermRecord),
}

/// `newest` is the newest term there ever was, `holder` the one that a live session holds, `asking` the session that
/// wants it, if it is still open.
pub fn acquire(
    newest: Option<TermRecord>,
    holder: Option<TermRecord>,
    session: SessionId,
    asking: Option<&StoredSession>,
) -> Result<Acquire, ServiceError> {
    match asking {
        Some(asking) if asking.session.kind == NodeKind::Controller => {}
        Some(_) => return refuse(ErrorCode::InvalidArgument, "only a controller takes the term"),
        None => return refuse(ErrorCode::Fenced, "the session has ended"),
    }
    match holder {
        Some(holder) if holder.session == session => Ok(Acquire::Held(holder.term)),
        Some(holder) => refuse(ErrorCode::Conflict, format!("term {} is held by another controller", holder.term)),
        None => {
            let newest = newest.map_or(Term(0), |record| record.term);
            Ok(Acquire::Take(TermRecord { term: Term(newest.0 + 1), session }))
        }
    }
}

/// Refuses what is not of the newest term. It does not ask whether the holder is alive: that never guards data.
pub fn check(newest: Option<TermRecord>, term: Term) -> Result<(), ServiceError> {
    let newest = newest.map_or(Term(0), |record| record.term);
    if term == newest && term != Term(0) {
        return Ok(());
    }
    refuse(ErrorCode::Fenced, format!("term {term} is not the newest, which is {newest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bmq_proto::meta::SessionRecord;
    use bmq_proto::{Incarnation, NodeId};

    fn session(id: u64, kind: NodeKind) -> StoredSession {
        let session = SessionRecord {
            kind,
            node: NodeId(1),
            incarnation: Incarnation(1),
            address: String::new(),
            endpoints: Default::default(),
        };
        StoredSession { session, id: SessionId(id) }
    }

    #[test]
    fn the_term_grows_and_is_held_by_one() {
        let (one, two) = (session(1, NodeKind::Controller), session(2, NodeKind::Controller));
        let Ok(Acquire::Take(first)) = acquire(None, None, one.id, Some(&one)) else { panic!("refused") };
        assert_eq!(first, TermRecord { term: Term(1), session: one.id });
        assert_eq!(acquire(Some(first), Some(first), one.id, Some(&one)), Ok(Acquire::Held(Term(1))));
        let refused = acquire(Some(first), Some(first), two.id, Some(&two)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let Ok(Acquire::Take(second)) = acquire(Some(first), None, two.id, Some(&two)) else { panic!("refused") };
        assert_eq!(second.term, Term(2));
        assert_eq!(check(Some(second), Term(1)).unwrap_err().code, ErrorCode::Fenced);
        assert_eq!(check(Some(second), Term(2)), Ok(()));
        assert!(check(None, Term(0)).is_err());
    }

    #[test]
    fn only_an_open_controller_session_takes_it() {
        let broker = session(1, NodeKind::Broker);
        assert_eq!(acquire(None, None, broker.id, Some(&broker)).unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(acquire(None, None, broker.id, None).unwrap_err().code, ErrorCode::Fenced);
    }
}
