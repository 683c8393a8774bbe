//! The proxy over its gRPC port and its Kafka port, with fakes of the metadata, the brokers and the store behind it.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod fake_broker;
#[cfg(test)]
mod fake_coordinator;
#[cfg(test)]
mod fake_meta;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod kafka_admin;
#[cfg(test)]
mod kafka_client;
#[cfg(test)]
mod kafka_connection;
#[cfg(test)]
mod kafka_fetch;
#[cfg(test)]
mod kafka_groups;
#[cfg(test)]
mod kafka_metadata;
#[cfg(test)]
mod kafka_produce;
#[cfg(test)]
mod kafka_versions;
#[cfg(test)]
mod poll;
#[cfg(test)]
mod produce;
