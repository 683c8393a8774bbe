//! The proxy over its gRPC port, with fakes of the metadata, the brokers and the store behind it.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod fake_broker;
#[cfg(test)]
mod fake_meta;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod poll;
#[cfg(test)]
mod produce;
