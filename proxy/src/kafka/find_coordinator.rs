//! `FindCoordinator`: the proxy that a group's requests should go to.

use bmq_kafka::messages::find_coordinator_response::Coordinator;
use bmq_kafka::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use bmq_kafka::{ResponseError, StrBytes};

use super::RequestContext;
use super::brokers::{Broker, brokers, coordinator};
use super::refusal::Refusal;

/// From this version on a request may have many keys.
const BATCHED_SINCE: i16 = 4;

/// Kinds of keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub async fn handle(context: &RequestContext<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let brokers = brokers(context);
    let find = |key: StrBytes| found(&brokers, request.key_type, key);
    if context.version >= BATCHED_SINCE {
        return FindCoordinatorResponse::default()
            .with_coordinators(request.coordinator_keys.iter().cloned().map(find).collect());
    }
    let found = find(request.key.clone());
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn found(brokers: &[Broker], key_type: i8, key: StrBytes) -> Coordinator {
    match choose(brokers, key_type, &key) {
        Ok(broker) => Coordinator::default()
            .with_key(key)
            .with_node_id(broker.id())
            .with_host(broker.host.clone())
            .with_port(broker.port),
        Err(refusal) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(refusal.code)
            .with_error_message(refusal.text()),
    }
}

fn choose<'a>(brokers: &'a [Broker], key_type: i8, key: &str) -> Result<&'a Broker, Refusal> {
    match key_type {
        GROUP => coordinator(brokers, key)
            .ok_or_else(|| Refusal::new(ResponseError::CoordinatorNotAvailable, "no proxy has an address to be told")),
        TRANSACTION => Err(Refusal::new(
            ResponseError::TransactionalIdAuthorizationFailed,
            "transactions are not supported: nobody coordinates them",
        )),
        other => Err(Refusal::new(ResponseError::InvalidRequest, format!("nothing has coordinators of type {other}"))),
    }
}
