//! The gRPC forms of the service traits: conversions, clients, servers.
