//! The entry to the SDK: one server's address, and the clients that can be made of it.

use bmq_common::Random;
use bmq_proto::rpc::{self, MAX_MESSAGE_BYTES};
use bmq_proto::v1::admin_client::AdminClient;
use bmq_proto::v1::messaging_client::MessagingClient;
use tonic::transport::Channel;

use crate::consumer::Subscription;
use crate::{Admin, Consumer, ConsumerConfig, Error, Producer, ProducerConfig};

/// A connection to bmq. Clones share it; each producer and each consumer opens one of its own.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    channel: Channel,
    random: Random,
}

impl Client {
    /// Connects to a server (`host:port`) and sees that it answers: `Unavailable` if nobody does, `Unsupported` if
    /// something else than bmq's gRPC port does. Later losses of the connection are repaired silently.
    pub async fn connect(address: &str) -> Result<Self, Error> {
        let channel = rpc::connect(address).await?;
        Ok(Self { address: address.to_owned(), channel, random: Random::from_os() })
    }

    /// A new producer. Must be called within a Tokio runtime. `InvalidArgument` if the configuration makes no sense.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer, Error> {
        let stub = self.messaging_on_its_own()?;
        Producer::start(stub, self.admin(), config, self.random.clone())
    }

    /// Reads the given partitions, each from its own start on, in records as they come.
    pub async fn consume<S: Into<Subscription>>(&self, subscriptions: Vec<S>) -> Result<Consumer, Error> {
        self.consume_with(subscriptions, ConsumerConfig::default()).await
    }

    /// Like [`Client::consume`], with a configuration of one's own.
    pub async fn consume_with<S: Into<Subscription>>(
        &self,
        subscriptions: Vec<S>,
        config: ConsumerConfig,
    ) -> Result<Consumer, Error> {
        let stub = self.messaging_on_its_own()?;
        let subscriptions = subscriptions.into_iter().map(Into::into).collect();
        Consumer::start(stub, self.admin(), subscriptions, config, self.random.clone()).await
    }

    /// The admin client.
    pub fn admin(&self) -> Admin {
        let channel = self.channel.clone();
        Admin::new(
            AdminClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
            MessagingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES),
        )
    }

    /// Bulk has a connection to itself, so that it delays nothing else.
    fn messaging_on_its_own(&self) -> Result<MessagingClient<Channel>, Error> {
        let channel = rpc::channel(&self.address)?;
        Ok(MessagingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }
}
