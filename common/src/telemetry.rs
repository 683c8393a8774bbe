//! Structured logs to standard error; standard output belongs to the commands.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How a process logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A level, or levels per module: `info,bmq_storage=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line for people, coloured on a terminal.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Logs could not be started; the process should say so and stop.
#[derive(Debug, Error)]
pub enum InitLogsError {
    #[error("log filter `{filter}` is not valid")]
    Filter {
        filter: String,
        #[source]
        source: ParseError,
    },
    #[error("logs are set up already")]
    AlreadySet(#[source] TryInitError),
}

/// Sets up the logs of the process; to be called once, first thing in `main`.
pub fn init_logs(config: LogConfig) -> Result<(), InitLogsError> {
    let filter = parse_filter(&config.filter)?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    };
    started.map_err(InitLogsError::AlreadySet)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, InitLogsError> {
    EnvFilter::try_new(filter).map_err(|source| InitLogsError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        let check = |filter: &str, expect: bool| assert_eq!(parse_filter(filter).is_ok(), expect, "{filter}");
        check("info", true);
        check("warn,bmq_storage=debug", true);
        check("bmq_storage=loud", false);
        check("=[", false);
    }

    #[test]
    fn formats_are_spelled_in_lower_case() {
        let config: LogConfig = toml::from_str("format = \"json\"").unwrap();
        assert_eq!(config.format, LogFormat::Json);
        assert_eq!(config.filter, "info");
    }
}
