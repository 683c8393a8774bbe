//! How a call to HDFS fails, and what that means in the words of [`StoreError`].
//!
//! The NameNode answers with the class of a Java exception and a text; only some classes reach us under names of
//! their own. Everything not known here becomes `Failed`, which promises nothing.

use std::future::Future;
use std::io;
use std::time::Duration;

use hdfs_native::HdfsError;
use tokio_util::task::AbortOnDropHandle;

use crate::StoreError;

/// Why a call gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    Answered(HdfsError),
    /// The call was given up; it may still happen.
    Deadline(Duration),
    /// The client library panicked; what it was doing is in no known state.
    Panicked(String),
}

/// Runs `call` in a task of its own, which is aborted at the deadline and when the caller goes away: the client
/// library hangs in places, panics in others, and neither may take its caller along.
pub(super) async fn guarded<T, F>(deadline: Duration, call: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, HdfsError>> + Send + 'static,
{
    let task = AbortOnDropHandle::new(tokio::spawn(call));
    match tokio::time::timeout(deadline, task).await {
        Ok(Ok(result)) => result.map_err(Failure::Answered),
        Ok(Err(join_error)) => Err(Failure::Panicked(panic_text(join_error))),
        Err(_) => Err(Failure::Deadline(deadline)),
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "its task was cancelled".to_owned();
    };
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("no text", |text| *text).to_owned(),
    }
}

impl Failure {
    /// The same in the words of the contract; `path` is below the store's root.
    pub(super) fn at(self, path: impl ToString, operation: &'static str) -> StoreError {
        let path = path.to_string();
        match self {
            Failure::Answered(error) => answered(path, operation, error),
            Failure::Deadline(deadline) => StoreError::Deadline { path, operation, deadline },
            Failure::Panicked(text) => {
                let source = format!("the HDFS client panicked: {text}").into();
                StoreError::Failed { path, operation, source }
            }
        }
    }

    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Failure::Answered(HdfsError::FileNotFound(_)) => true,
            Failure::Answered(HdfsError::RPCError(class, _)) => simple_name(class) == "FileNotFoundException",
            _ => false,
        }
    }

    /// The name is taken. Also the answer to a lease recovery that has to wait for blocks being finished.
    pub(super) fn is_already_exists(&self) -> bool {
        matches!(self, Failure::Answered(HdfsError::AlreadyExists(_)))
    }

    /// HDFS said no: what was asked did not happen and will not.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Failure::Answered(HdfsError::AlreadyExists(_) | HdfsError::RPCError(..)))
    }
}

fn answered(path: String, operation: &'static str, error: HdfsError) -> StoreError {
    match error {
        HdfsError::AlreadyExists(_) => StoreError::AlreadyExists { path },
        HdfsError::FileNotFound(_) => StoreError::NotFound { path },
        HdfsError::RPCError(class, text) | HdfsError::FatalRPCError(class, text) => {
            refused(path, operation, simple_name(&class), first_line(&text), &class)
        }
        other => StoreError::Failed { path, operation, source: Box::new(other) },
    }
}

fn refused(path: String, operation: &'static str, class: &str, text: &str, full_class: &str) -> StoreError {
    let refuse = |path, advice: &str| StoreError::Refused { path, operation, reason: format!("{text} ({advice})") };
    match class {
        "FileNotFoundException" => StoreError::NotFound { path },
        "LeaseExpiredException" => StoreError::Fenced { path },
        "RecoveryInProgressException" => StoreError::NotClosed { path },
        "SafeModeException" => refuse(
            path,
            "the NameNode is in safe mode: wait until enough DataNodes have reported, or see why they do not",
        ),
        "AccessControlException" | "AuthorizationException" => {
            refuse(path, "give this user the right to write below the store's root, or set HADOOP_USER_NAME")
        }
        "NSQuotaExceededException" => refuse(path, "raise the folder's name quota, or shorten retention"),
        "ParentNotDirectoryException" => refuse(path, "a file stands where a folder is needed"),
        "DSQuotaExceededException" | "QuotaByStorageTypeExceededException" => no_space(path, text),
        _ if text.contains("could only be written to") => no_space(path, text),
        _ => StoreError::Failed { path, operation, source: format!("{full_class}: {text}").into() },
    }
}

fn no_space(path: String, text: &str) -> StoreError {
    StoreError::NoSpace { path, source: io::Error::new(io::ErrorKind::StorageFull, text) }
}

/// A Java class without its package, and without the class it is nested in.
fn simple_name(class: &str) -> &str {
    class.rsplit(['.', '$']).next().unwrap_or(class)
}

/// The text without the Java stack trace that follows it.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// An error with all its causes in one line, for a place that keeps only text.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn rpc(class: &str, text: &str) -> StoreError {
        Failure::Answered(HdfsError::RPCError(class.to_owned(), text.to_owned())).at("f", "writing")
    }

    #[test]
    fn classes_get_their_meaning() {
        let package = "org.apache.hadoop.hdfs.server.namenode";
        assert!(matches!(rpc(&format!("{package}.LeaseExpiredException"), "no lease"), StoreError::Fenced { .. }));
        assert!(matches!(rpc("java.io.FileNotFoundException", "gone"), StoreError::NotFound { .. }));
        let quota = "org.apache.hadoop.hdfs.protocol.DSQuotaExceededException";
        assert!(matches!(rpc(quota, "full"), StoreError::NoSpace { .. }));
        let none = "File /f could only be written to 0 of the 1 minReplication nodes.\n\tat java";
        assert!(matches!(rpc("java.io.IOException", none), StoreError::NoSpace { .. }));
        assert!(matches!(rpc("java.io.IOException", "other"), StoreError::Failed { .. }));
    }

    #[test]
    fn refusals_say_what_to_do_and_leave_the_stack_out() {
        let error = rpc("org.apache.hadoop.hdfs.server.namenode.SafeModeException", "Cannot create f.\n\tat a.b.C");
        let text = error.to_string();
        assert!(
            text.contains("Cannot create f.") && text.contains("safe mode: wait") && !text.contains("a.b.C"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_hanging_and_a_panicking_call_become_errors() {
        let late = guarded(Duration::from_millis(5), pending::<Result<(), HdfsError>>()).await;
        assert!(matches!(late, Err(Failure::Deadline(_))));
        let panicking = guarded(Duration::from_secs(30), async { panic!("number {}", 7) });
        let result: Result<(), Failure> = panicking.await;
        assert!(matches!(result, Err(Failure::Panicked(text)) if text == "number 7"));
    }
}
