//! What a store can answer instead of doing what was asked.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bmq_proto::{ErrorCode, Happened, ServiceError};

/// A store's refusal or failure. `path` is below the store's root.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is not there. Read metadata again: it may have been dropped.
    #[error("file {path} does not exist")]
    NotFound { path: String },
    /// The name is taken, also by a file under creation. Take another name; nothing was touched.
    #[error("file {path} exists already")]
    AlreadyExists { path: String },
    /// Another process fenced the file: this writer is over.
    #[error("file {path} was fenced by another owner")]
    Fenced { path: String },
    /// The deadline passed; what was asked may have happened or may yet. The file is over for its writer.
    #[error("{operation} of {path} did not end within {deadline:?}")]
    Deadline { path: String, operation: &'static str, deadline: Duration },
    /// The writer had failed before; nothing more is done with it.
    #[error("the writer of {path} is broken: {reason}")]
    Broken { path: String, reason: String },
    /// The file is still being closed or recovered: its content cannot be read yet. Retry soon.
    #[error("file {path} is not closed yet")]
    NotClosed { path: String },
    /// Asked for bytes that the file does not have.
    #[error("file {path} has {length} bytes, asked for {start}..{end}")]
    PastEnd { path: String, length: u64, start: u64, end: u64 },
    /// No room: writing can go on when there is some again.
    #[error("no space left for {path}")]
    NoSpace {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// Bytes in the store are not what was written.
    #[error("file {path} is damaged at byte {position}: {reason}")]
    Damaged { path: String, position: u64, reason: String },
    /// The store refuses for a reason that an operator must remove (permission, quota, safe mode, unfit folder).
    #[error("the store refused {operation} of {path}: {reason}")]
    Refused { path: String, operation: &'static str, reason: String },
    /// Anything else from below.
    #[error("{operation} of {path} failed")]
    Failed {
        path: String,
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What an operation on `path` answers when the file system below it failed so.
    pub(crate) fn from_io(path: &str, operation: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoSpace { path, source },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::Refused { path, operation, reason: source.to_string() }
            }
            _ => StoreError::Failed { path, operation, source: Box::new(source) },
        }
    }

    /// The error and its causes on one line, for where only a text can be kept.
    pub(crate) fn reason_chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        matches!(
            self,
            StoreError::Deadline { .. }
                | StoreError::NotClosed { .. }
                | StoreError::NoSpace { .. }
                | StoreError::Refused { .. }
                | StoreError::Failed { .. }
        )
    }

    /// Whether what was asked may have been done all the same.
    pub fn happened(&self) -> Happened {
        match self {
            StoreError::Deadline { .. } | StoreError::Failed { .. } | StoreError::Broken { .. } => Happened::Unknown,
            _ => Happened::NotApplied,
        }
    }
}

impl From<&StoreError> for ServiceError {
    fn from(error: &StoreError) -> Self {
        let code = match error {
            StoreError::NotFound { .. } | StoreError::NotClosed { .. } => ErrorCode::Unavailable,
            StoreError::Fenced { .. } => ErrorCode::Fenced,
            StoreError::Deadline { .. } => ErrorCode::Timeout,
            // No retry mends what is missing or wrong.
            StoreError::Damaged { .. } | StoreError::PastEnd { .. } => ErrorCode::Damaged,
            _ => ErrorCode::Storage,
        };
        ServiceError { code, happened: error.happened(), message: error.to_string() }
    }
}
