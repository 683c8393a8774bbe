//! The settings that every process has, and how they are loaded: defaults, file, environment, flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use bmq_common::HumanDuration;
use bmq_common::config::{self, effective_toml};
use bmq_common::telemetry::LogConfig;
use bmq_proto::meta::MetaService;
use bmq_proto::rpc::{MetaClient, MetaClientConfig, check_address};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::UsageError;
use crate::output::print_text;

/// Read by the tools, not by the services: it must not be taken for a setting.
pub const SERVER_VARIABLE: &str = "BMQ_SERVER";

/// Where the settings of a service come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SettingsArguments {
    /// A TOML file with settings; what it does not set keeps its default
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one setting, such as `log.filter=debug`, whatever file and environment say; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub overrides: Vec<(String, String)>,
    /// Print every setting in force, as a file that could be loaded again, and end; docs/CONFIGURATION.md explains them
    #[arg(long)]
    pub print_config: bool,
}

/// What a service's settings must offer.
pub trait Settings: DeserializeOwned + Serialize + Default {
    /// What a single value cannot show.
    fn validate(&self) -> Result<(), String>;
}

impl SettingsArguments {
    /// The settings in force; none if they were only to be printed.
    pub fn load<T: Settings>(&self, more: Vec<(String, String)>) -> anyhow::Result<Option<T>> {
        let environment = std::env::vars().filter(|(name, _)| name != SERVER_VARIABLE);
        let overrides: Vec<_> = self.overrides.iter().cloned().chain(more).collect();
        let settings: T = config::load(self.config.as_deref(), environment, &overrides)?;
        settings.validate().map_err(UsageError).context("the settings are not valid")?;
        if self.print_config {
            print_text(&effective_toml(&settings))?;
            return Ok(None);
        }
        Ok(Some(settings))
    }
}

/// `KEY=VALUE`.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| "write it like KEY=VALUE".to_owned())
}

/// A port for gRPC that others must find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcSettings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// `host:port` that others reach it at, where that is not the address (behind a wildcard, or in a container).
    pub advertised: Option<String>,
}

impl GrpcSettings {
    pub fn on_port(port: u16) -> Self {
        GrpcSettings { address: loopback(port), advertised: None }
    }

    /// What to tell others, once the port is bound.
    pub fn advertised(&self, bound: SocketAddr) -> String {
        self.advertised.clone().unwrap_or_else(|| bound.to_string())
    }

    pub fn validate(&self) -> Result<(), String> {
        check_reachable("grpc", self.address, self.advertised.as_deref())
    }
}

/// A port for Kafka clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerSettings {
    /// Clients that come through it are told the addresses that the other proxies have under this name.
    pub name: String,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// `host:port` that clients reach it at, where that is not the address.
    pub advertised: Option<String>,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        ListenerSettings { name: "kafka".to_owned(), address: loopback(KAFKA_PORT), advertised: None }
    }
}

impl ListenerSettings {
    pub fn on_port(port: u16) -> Self {
        ListenerSettings { address: loopback(port), ..Self::default() }
    }

    /// Checks listeners of one process together.
    pub fn validate_all(listeners: &[ListenerSettings]) -> Result<(), String> {
        for (index, listener) in listeners.iter().enumerate() {
            let name = &listener.name;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!("`{name}` is no name for a listener, use letters and digits"));
            }
            if listeners[..index].iter().any(|other| other.name == *name) {
                return Err(format!("two listeners are called `{name}`"));
            }
            check_reachable(&format!("listener `{name}`:"), listener.address, listener.advertised.as_deref())?;
        }
        Ok(())
    }
}

/// Checks what others are told of a port.
pub fn check_reachable(whose: &str, address: SocketAddr, advertised: Option<&str>) -> Result<(), String> {
    let key = |name: &str| if whose.ends_with(':') { format!("{whose} {name}") } else { format!("{whose}.{name}") };
    match advertised {
        Some(advertised) => check_address(advertised).map_err(|error| format!("{}: {error}", key("advertised"))),
        None if address.ip().is_unspecified() => {
            let (address_key, advertised_key) = (key("address"), key("advertised"));
            Err(format!("{address_key} {address} reaches nobody from elsewhere, set {advertised_key} too"))
        }
        None => Ok(()),
    }
}

/// The operators' port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpSettings {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
}

impl HttpSettings {
    pub fn on_port(port: u16) -> Self {
        HttpSettings { address: loopback(port) }
    }
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self::on_port(0)
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self::on_port(0)
    }
}

/// How to reach the metadata service, for those that are not it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetaClientSettings {
    /// `host:port` of its processes.
    pub endpoints: Vec<String>,
    /// How long one call may take, with tries at several endpoints.
    pub call_timeout: HumanDuration,
}

impl Default for MetaClientSettings {
    fn default() -> Self {
        let endpoints = vec![loopback(META_PORT).to_string()];
        MetaClientSettings { endpoints, call_timeout: HumanDuration::secs(5) }
    }
}

impl MetaClientSettings {
    /// A client of it, which connects at the first call.
    pub fn connect(&self) -> anyhow::Result<Arc<dyn MetaService>> {
        let config = MetaClientConfig { endpoints: self.endpoints.clone(), deadline: self.call_timeout.get() };
        Ok(Arc::new(MetaClient::new(&config).context("meta_client.endpoints cannot be used")?))
    }

    pub fn validate(&self) -> Result<(), String> {
        if self.endpoints.is_empty() {
            return Err("meta_client.endpoints names nobody, name at least one host:port".to_owned());
        }
        if self.call_timeout.get().is_zero() {
            return Err("meta_client.call_timeout must not be zero".to_owned());
        }
        let checked = self.endpoints.iter().try_for_each(|endpoint| check_address(endpoint));
        checked.map_err(|error| format!("meta_client.endpoints: {error}"))
    }
}

/// The ports where nothing else is set; each service's HTTP port follows its gRPC port.
pub const STANDALONE_PORT: u16 = 9640;
/// Kafka's own.
pub const KAFKA_PORT: u16 = 9092;
pub const META_PORT: u16 = 9650;
pub const CONTROLLER_HTTP_PORT: u16 = 9661;
pub const BROKER_PORT: u16 = 9670;
pub const COORDINATOR_PORT: u16 = 9680;

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Logs of a process whose terminal is for something else.
pub fn quiet_log() -> LogConfig {
    LogConfig { filter: "warn".to_owned(), ..LogConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(parse_pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(parse_pair("a").is_err() && parse_pair("=b").is_err());
    }

    #[test]
    fn a_wildcard_needs_a_name_for_others() {
        let mut grpc = GrpcSettings { address: ([0, 0, 0, 0], 1).into(), advertised: None };
        assert!(grpc.validate().unwrap_err().contains("grpc.advertised"));
        grpc.advertised = Some("broker-1".to_owned());
        assert!(grpc.validate().unwrap_err().contains("grpc.advertised: `broker-1` is not an address"));
        grpc.advertised = Some("broker-1:9670".to_owned());
        assert_eq!(grpc.validate(), Ok(()));
        assert_eq!(grpc.advertised(loopback(5)), "broker-1:9670");
        assert_eq!(GrpcSettings::on_port(0).advertised(loopback(5)), "127.0.0.1:5");
    }

    #[test]
    fn listeners_have_names_of_their_own() {
        let named = |name: &str| ListenerSettings { name: name.to_owned(), ..ListenerSettings::on_port(0) };
        let check = |listeners: &[ListenerSettings], expect: &str| {
            let error = ListenerSettings::validate_all(listeners).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        assert_eq!(ListenerSettings::validate_all(&[named("inside"), named("outside")]), Ok(()));
        assert_eq!(ListenerSettings::validate_all(&[]), Ok(()));
        check(&[named("inside"), named("inside")], "two listeners are called `inside`");
        check(&[named("")], "is no name");
        let wildcard = ListenerSettings { address: ([0, 0, 0, 0], 1).into(), ..named("inside") };
        check(&[wildcard], "listener `inside`: address 0.0.0.0:1 reaches nobody from elsewhere");
    }

    #[test]
    fn endpoints_are_addresses() {
        let check = |endpoints: &[&str], expect: &str| {
            let endpoints = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
            let error = MetaClientSettings { endpoints, ..Default::default() }.validate().unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        assert_eq!(MetaClientSettings::default().validate(), Ok(()));
        check(&[], "names nobody");
        check(&["127.0.0.1:1", "meta-1"], "meta_client.endpoints: `meta-1` is not an address");
    }
}
