//! `InitProducerId`: an id for an idempotent producer. Transactions are not supported.

use bmq_kafka::ResponseError;
use bmq_kafka::error::producer_id_code;
use bmq_kafka::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use tracing::debug;

use super::RequestContext;

/// A producer that comes back with an id that it had gets a new one: its sequences begin anew with it.
pub async fn handle(context: &RequestContext<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let given = match request.transactional_id {
        // What makes clients give up at once, instead of looking for a coordinator of transactions.
        Some(_) => Err(ResponseError::TransactionalIdAuthorizationFailed),
        None => context.api.producer_ids.next().await.map_err(|error| {
            debug!(%error, "no producer id could be had");
            producer_id_code(&error)
        }),
    };
    match given {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}
