//! The server that the tools talk to: its address as it is typed, and the connection to it.

use bmq_client::{Client, ErrorCode};
use bmq_proto::rpc::check_address;

/// Checks an address when it is typed, so that a wrong one is wrong usage and no failure of a server.
pub fn parse_address(text: &str) -> Result<String, String> {
    match check_address(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err("host:port expected".to_owned()),
    }
}

/// Connects, or says what a person can do about it.
pub async fn connect(server: &str) -> anyhow::Result<Client> {
    match Client::connect(server).await {
        Ok(client) => Ok(client),
        Err(mut error) => {
            match error.code {
                ErrorCode::Unavailable => error.message += "; is it running? start one with `bmq standalone`",
                ErrorCode::Unsupported => error.message += "; the addresses are in what a server prints when it starts",
                _ => {}
            }
            Err(error.into())
        }
    }
}
