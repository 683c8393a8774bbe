//! How others in this process reach brokers: the broker itself where it is in the same process, kept gRPC clients
//! otherwise.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::broker::{
    AppendStream, BrokerConnector, BrokerService, OwnerBatches, OwnerRead, PartitionBounds, TailStream,
};
use bmq_proto::meta::SessionRecord;
use bmq_proto::rpc::{BrokerClient, BrokerClientConfig};
use bmq_proto::{Epoch, Offset, ServiceError, TopicId, TopicPartition};
use parking_lot::Mutex;

/// How long one call to a broker may take. The callers set shorter ones of their own.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

/// More clients than brokers that live at once; beyond it, clients of brokers that are gone are dropped.
const MAX_CLIENTS: usize = 1_024;

/// The one broker of this process.
pub struct LocalBroker(pub Arc<dyn BrokerService>);

impl BrokerConnector for LocalBroker {
    fn connect(&self, _broker: &SessionRecord) -> Arc<dyn BrokerService> {
        Arc::clone(&self.0)
    }
}

/// Brokers of other processes: one client for each address.
#[derive(Default)]
pub struct RemoteBrokers {
    clients: Mutex<HashMap<String, Arc<dyn BrokerService>>>,
}

impl BrokerConnector for RemoteBrokers {
    fn connect(&self, broker: &SessionRecord) -> Arc<dyn BrokerService> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&broker.address) {
            return Arc::clone(client);
        }
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, client| Arc::strong_count(client) > 1);
        }
        let client = open(&broker.address);
        clients.insert(broker.address.clone(), Arc::clone(&client));
        client
    }
}

fn open(address: &str) -> Arc<dyn BrokerService> {
    match BrokerClient::new(&BrokerClientConfig { address: address.to_owned(), deadline: CALL_DEADLINE }) {
        Ok(client) => Arc::new(client),
        Err(error) => Arc::new(Unreachable(error)),
    }
}

/// A broker that gave an address which is none: every call says so.
struct Unreachable(ServiceError);

#[async_trait]
impl BrokerService for Unreachable {
    async fn append_stream(&self) -> Result<AppendStream, ServiceError> {
        Err(self.0.clone())
    }

    async fn read(&self, _request: OwnerRead) -> Result<OwnerBatches, ServiceError> {
        Err(self.0.clone())
    }

    async fn bounds(&self, _partition: TopicPartition) -> Result<PartitionBounds, ServiceError> {
        Err(self.0.clone())
    }

    async fn follow(&self, _at: TopicPartition, _epoch: Epoch, _from: Offset) -> Result<TailStream, ServiceError> {
        Err(self.0.clone())
    }

    async fn delete_topic_data(&self, _topic: TopicId) -> Result<(), ServiceError> {
        Err(self.0.clone())
    }
}
