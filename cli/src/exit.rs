//! Exit codes: the whole meaning of an outcome, for scripts. They are documented in `docs/CLI.md` and never change.

use std::io;
use std::process::ExitCode;

use bmq_common::config::ConfigError;
use bmq_proto::{ErrorCode, ServiceError};

pub const SUCCESS: u8 = 0;
/// Something failed, and the message says what.
pub const FAILURE: u8 = 1;
/// What was typed or configured makes no sense.
pub const USAGE: u8 = 2;
/// No such topic, partition, offset or group.
pub const NOT_FOUND: u8 = 3;
/// The server did not answer, or not in time: trying again may help.
pub const UNAVAILABLE: u8 = 4;
/// The server looked at it and will not take it: trying again will not help.
pub const REFUSED: u8 = 5;
/// Stopped by Ctrl-C before it was done, as shells count it.
pub const INTERRUPTED: u8 = 130;

/// Shown below `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong usage or configuration
  3    no such topic, partition, offset or group
  4    no answer, too late, or busy: try again
  5    refused by the server: trying again will not help
  130  interrupted";

/// What was typed or configured makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// The user ended it before it was done.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the output")]
pub struct OutputError(#[source] pub io::Error);

/// Prints an error with its causes, once, and returns the code.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else {
        return SUCCESS.into();
    };
    let code = code_of(&error);
    // Nobody reads on: that is how `head` ends a pipe, and no failure to talk about.
    if is_broken_pipe(&error) {
        return SUCCESS.into();
    }
    eprintln!("bmq: {error:#}");
    code.into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let output = error.downcast_ref::<OutputError>();
    output.is_some_and(|OutputError(error)| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The first cause that says more than "failed" decides.
fn code_of(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of_cause).unwrap_or(FAILURE)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = cause.downcast_ref::<ServiceError>() {
        return Some(code_of_error_code(error.code));
    }
    if let Some(error) = cause.downcast_ref::<bmq_client::Error>() {
        return Some(code_of_error_code(error.code));
    }
    if cause.is::<UsageError>() || cause.is::<ConfigError>() {
        return Some(USAGE);
    }
    if cause.is::<Interrupted>() {
        return Some(INTERRUPTED);
    }
    None
}

fn code_of_error_code(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownPartition | ErrorCode::UnknownGroup | ErrorCode::OutOfRange => {
            NOT_FOUND
        }
        ErrorCode::NotOwner | ErrorCode::Busy | ErrorCode::OutOfTurn | ErrorCode::Unavailable | ErrorCode::Timeout => {
            UNAVAILABLE
        }
        ErrorCode::InvalidArgument
        | ErrorCode::InvalidBatch
        | ErrorCode::MessageTooLarge
        | ErrorCode::TopicExists
        | ErrorCode::GroupInUse
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::ProducerFenced
        | ErrorCode::Unsupported => REFUSED,
        ErrorCode::Fenced | ErrorCode::Storage | ErrorCode::Damaged | ErrorCode::Conflict | ErrorCode::Internal => {
            FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_decide() {
        let check = |error: anyhow::Error, expect: u8| assert_eq!(code_of(&error), expect, "{error:#}");
        let service = |code| anyhow::Error::from(ServiceError::not_applied(code, "no"));
        check(service(ErrorCode::UnknownTopic).context("cannot describe the topic"), NOT_FOUND);
        check(service(ErrorCode::Timeout), UNAVAILABLE);
        let client: bmq_client::Error = ServiceError::not_applied(ErrorCode::OutOfRange, "no").into();
        check(client.into(), NOT_FOUND);
        check(service(ErrorCode::TopicExists), REFUSED);
        check(service(ErrorCode::Storage), FAILURE);
        check(UsageError("no".to_owned()).into(), USAGE);
        check(Interrupted.into(), INTERRUPTED);
        check(anyhow::anyhow!("no"), FAILURE);
        let config = bmq_common::config::load::<Empty>(Some("absent.toml".as_ref()), std::iter::empty(), &[]);
        check(config.map(drop).context("cannot start").unwrap_err(), USAGE);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let broken = |kind: io::ErrorKind| anyhow::Error::from(OutputError(kind.into())).context("cannot show");
        assert!(is_broken_pipe(&broken(io::ErrorKind::BrokenPipe)));
        assert!(!is_broken_pipe(&broken(io::ErrorKind::StorageFull)));
        assert!(!is_broken_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()), "not of the output");
    }

    #[derive(Default, serde::Serialize, serde::Deserialize)]
    struct Empty {}

    #[test]
    fn the_help_names_every_code() {
        for code in [SUCCESS, FAILURE, USAGE, NOT_FOUND, UNAVAILABLE, REFUSED, INTERRUPTED] {
            assert!(HELP.contains(&code.to_string()), "{code}");
        }
    }
}
