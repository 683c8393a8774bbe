//! What a service process tells whoever started it: one line of JSON on standard output, once it listens.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::output::print_text;

/// The kinds of service process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Meta,
    Controller,
    Broker,
    Proxy,
}

impl Kind {
    /// The subcommand that runs it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Meta => "meta",
            Kind::Controller => "controller",
            Kind::Broker => "broker",
            Kind::Proxy => "proxy",
        }
    }
}

/// Where a process can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub kind: Kind,
    pub id: u32,
    /// Absent for a service that serves no calls.
    pub grpc: Option<String>,
    pub http: SocketAddr,
}

impl Announcement {
    pub fn print(&self) -> anyhow::Result<()> {
        print_text(&format!("{}\n", serde_json::to_string(self)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_stable() {
        let http = SocketAddr::from(([127, 0, 0, 1], 2));
        let announcement = Announcement { kind: Kind::Broker, id: 3, grpc: Some("127.0.0.1:1".to_owned()), http };
        let line = r#"{"kind":"broker","id":3,"grpc":"127.0.0.1:1","http":"127.0.0.1:2"}"#;
        assert_eq!(serde_json::to_string(&announcement).unwrap(), line);
        assert_eq!(serde_json::from_str::<Announcement>(line).unwrap(), announcement);
    }
}
