//! How others in this process reach brokers: the broker itself where it is in the same process, kept gRPC clients
//! otherwise.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bmq_proto::broker::{
    ActiveProducer, AppendStream, BrokerConnector, BrokerService, OwnerBatches, OwnerRead, PartitionBounds, TailStream,
    TimeHint, TimeSearch,
};
use bmq_proto::meta::SessionRecord;
use bmq_proto::rpc::{BrokerClient, BrokerClientConfig};
use bmq_proto::{Epoch, Offset, ServiceError, TopicId, TopicPartition};

use super::kept_clients::KeptClients;

/// How long one call to a broker may take. The callers set shorter ones of their own.
const CALL_DEADLINE: Duration = Duration::from_secs(60);

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
    clients: KeptClients<dyn BrokerService>,
}

impl BrokerConnector for RemoteBrokers {
    fn connect(&self, broker: &SessionRecord) -> Arc<dyn BrokerService> {
        self.clients.get(&broker.address, open)
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

    async fn delete_records(&self, _at: TopicPartition, _epoch: Epoch, _to: Offset) -> Result<Offset, ServiceError> {
        Err(self.0.clone())
    }

    async fn offset_for_time(
        &self,
        _at: TopicPartition,
        _epoch: Epoch,
        _search: TimeSearch,
    ) -> Result<Option<TimeHint>, ServiceError> {
        Err(self.0.clone())
    }

    async fn producers(&self, _at: TopicPartition, _epoch: Epoch) -> Result<Vec<ActiveProducer>, ServiceError> {
        Err(self.0.clone())
    }

    async fn delete_topic_data(&self, _topic: TopicId) -> Result<(), ServiceError> {
        Err(self.0.clone())
    }
}
