//! The proxy over its gRPC port, with fakes of the metadata, the brokers and the store behind it.

mod admin;
mod cluster;
mod fake_broker;
mod fake_meta;
mod fetch;
mod poll;
mod produce;
