//! Where a client wants replicas to be. The store decides that, so a wish is checked for sense and not followed.

use std::collections::HashSet;

use bmq_kafka::ResponseError;
use bmq_kafka::messages::BrokerId;

use super::brokers::Broker;
use super::refusal::Refusal;

/// Whether a partition may be wished at these brokers: some, each once, all of which there are.
pub fn check_assignment(brokers: &[Broker], wished: &[BrokerId]) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    if wished.is_empty() {
        return refuse("a partition is assigned to no broker".to_owned());
    }
    let mut seen = HashSet::new();
    for wish in wished {
        if !brokers.iter().any(|broker| broker.id() == *wish) {
            return refuse(format!("there is no broker {}", wish.0));
        }
        if !seen.insert(wish.0) {
            return refuse(format!("a partition is assigned to broker {} twice", wish.0));
        }
    }
    Ok(())
}
