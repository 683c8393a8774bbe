//! A port that Kafka clients connect to.
//!
//! Bounds: there are at most so many connections over all listeners; one more is closed as soon as it is made, so that
//! its client tries elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info, warn};

use super::connection::{self, Arrival};
use crate::api::Api;

/// A pause after a connection could not be taken, for want of file handles or the like.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound port, and how clients are told of it.
#[derive(Debug)]
pub struct KafkaListener {
    /// Clients that come through it are told the addresses that other proxies have under this name.
    pub name: String,
    pub socket: TcpListener,
    /// `host:port` that clients reach it at.
    pub advertised: String,
}

/// Takes connections until the shutdown begins; each is served by a task of its own, which outlives this one.
pub async fn run(api: Arc<Api>, listener: KafkaListener) {
    let KafkaListener { name, socket, advertised } = listener;
    let name: Arc<str> = name.into();
    info!(listener = &*name, advertised, "taking Kafka clients");
    let mut is_full = false;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = api.shutdown().begun() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, listener = &*name, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&api.kafka.connections).try_acquire_owned() {
            Ok(permit) => {
                is_full = false;
                let arrival = Arrival { host: peer.ip(), listener: Arc::clone(&name) };
                let served = serve(Arc::clone(&api), stream, arrival, permit);
                api.streams.spawn("kafka connection", served);
            }
            Err(_) if is_full => debug!(%peer, "one connection too many"),
            Err(_) => {
                is_full = true;
                warn!(%peer, limit = api.config.kafka.max_connections, "one connection too many, closing it");
            }
        }
    }
}

async fn serve(api: Arc<Api>, stream: TcpStream, arrival: Arrival, permit: OwnedSemaphorePermit) {
    let _permit = permit;
    let _level = api.kafka.metrics.connection_open();
    let host = arrival.host;
    // Answers are written whole; none must wait for the next.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, %host, "a connection was gone before it was served");
        return;
    }
    let ending = connection::serve(api, stream, arrival).await;
    if let Err(error) = ending {
        debug!(%error, %host, "a connection is closed");
    }
}
