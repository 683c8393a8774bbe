//! `DescribeCluster`: the proxies, as the brokers of the cluster.

use bmq_kafka::messages::describe_cluster_response::DescribeClusterBroker;
use bmq_kafka::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use bmq_kafka::{ResponseError, StrBytes};

use super::RequestContext;
use super::authorized_operations::of_cluster;
use super::brokers::{Broker, brokers};
use super::metadata::controller;
use super::refusal::Refusal;

/// Kinds of endpoints that a client may take this one for.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(context: &RequestContext<'_>, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let answer = DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(StrBytes::from_string(context.api.cluster.to_string()))
        .with_controller_id(BrokerId(-1))
        .with_cluster_authorized_operations(of_cluster(request.include_cluster_authorized_operations));
    let refused = |refusal: Refusal| answer.clone().with_error_code(refusal.code).with_error_message(refusal.text());
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message = "this is an endpoint of brokers, not of controllers";
            return refused(Refusal::new(ResponseError::MismatchedEndpointType, message));
        }
        other => {
            let message = format!("there are no endpoints of type {other}");
            return refused(Refusal::new(ResponseError::UnsupportedEndpointType, message));
        }
    }
    let brokers = brokers(context);
    let described = |broker: &Broker| {
        DescribeClusterBroker::default()
            .with_broker_id(broker.id())
            .with_host(broker.host.clone())
            .with_port(broker.port)
    };
    answer.with_controller_id(controller(&brokers)).with_brokers(brokers.iter().map(described).collect())
}
