//! What a service process tells whoever started it: one line of JSON on standard output, once it listens.

use std::collections::BTreeMap;
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
    Coordinator,
    Proxy,
}

impl Kind {
    /// The subcommand that runs it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Meta => "meta",
            Kind::Controller => "controller",
            Kind::Broker => "broker",
            Kind::Coordinator => "coordinator",
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
    /// A proxy's ports for Kafka clients: `host:port` by the listener's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kafka: BTreeMap<String, String>,
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
        let (grpc, kafka) = (Some("127.0.0.1:1".to_owned()), BTreeMap::new());
        let announcement = Announcement { kind: Kind::Broker, id: 3, grpc, kafka, http };
        let line = r#"{"kind":"broker","id":3,"grpc":"127.0.0.1:1","http":"127.0.0.1:2"}"#;
        assert_eq!(serde_json::to_string(&announcement).unwrap(), line);
        assert_eq!(serde_json::from_str::<Announcement>(line).unwrap(), announcement);
        let kafka = BTreeMap::from([("kafka".to_owned(), "127.0.0.1:3".to_owned())]);
        let line = serde_json::to_string(&Announcement { kafka, ..announcement }).unwrap();
        assert!(line.contains(r#""kafka":{"kafka":"127.0.0.1:3"}"#), "{line}");
    }
}
