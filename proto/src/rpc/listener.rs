//! How a process listens for gRPC, and how it connects to another.
//!
//! Invariants of a listener:
//! * connections, streams per connection, and bytes in flight per stream and connection are bounded;
//! * nothing that a peer sends, or fails to send, ends the listener;
//! * once the shutdown has begun nothing new is taken, and after `Limits::drain_time` nothing is left.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bmq_common::Shutdown;
use futures::{Stream, stream};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;
use tracing::{debug, warn};

use super::connection::Connection;
use crate::{ErrorCode, ServiceError};

/// Bytes that a peer may have under way on one stream, and on one connection, before it must wait.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Large frames, so that a message of a stream of batches is one or two.
const FRAME_BYTES: u32 = 1 << 20;

/// A status carries its message twice, once in base 64.
const HEADER_LIST_BYTES: u32 = 16 << 10;

/// How often an idle peer is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// After a failed accept (no file descriptor left, say): time for others to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener takes on at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Calls and streams of one connection; a client waits before it opens more.
    pub max_streams_per_connection: u32,
    /// How long a peer may take to begin HTTP/2 after it has connected.
    pub preface_time: Duration,
    /// How long calls and streams may go on after the shutdown has begun.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_streams_per_connection: 1024,
            preface_time: Duration::from_secs(10),
            drain_time: Duration::from_secs(5),
        }
    }
}

/// The listener could not go on.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC listener failed")]
pub struct ServeError(#[from] tonic::transport::Error);

/// Serves `routes`, and the standard health service, until the shutdown has begun and all calls have ended.
///
/// The health service says that the process serves from the first connection on until the shutdown begins. Streams
/// of `routes` should end by themselves at the shutdown; what has not ended after `limits.drain_time` is cut, and
/// everything is when the returned future is dropped.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    shutdown: Shutdown,
    limits: Limits,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let cut = CutWhenDropped(Shutdown::new());
    let mut serving = std::pin::pin!(
        Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits.max_streams_per_connection)
            .max_frame_size(FRAME_BYTES)
            .http2_max_header_list_size(HEADER_LIST_BYTES)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .add_routes(routes.add_service(health_service))
            .serve_with_incoming_shutdown(accept(listener, cut.0.clone(), limits), shutdown.begun())
    );
    tokio::select! {
        result = &mut serving => return Ok(result?),
        () = shutdown.begun() => {}
    }
    // The empty name stands for the process as a whole.
    health.set_service_status("", ServingStatus::NotServing).await;
    if let Ok(result) = tokio::time::timeout(limits.drain_time, &mut serving).await {
        return Ok(result?);
    }
    debug!("cutting connections that have not ended");
    cut.0.begin();
    Ok(serving.await?)
}

/// Cuts the connections, which are tasks of their own, also when the serving is cancelled.
struct CutWhenDropped(Shutdown);

impl Drop for CutWhenDropped {
    fn drop(&mut self) {
        self.0.begin();
    }
}

/// The connections as they come. `TCP_NODELAY` is set on each here: tonic's own setting would be ignored for a
/// listener that was bound by the caller.
fn accept(listener: TcpListener, cut: Shutdown, limits: Limits) -> impl Stream<Item = Result<Connection, Infallible>> {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    stream::unfold((listener, permits, cut), move |(listener, permits, cut)| async move {
        let connection = accept_one(&listener, Arc::clone(&permits), cut.clone(), limits).await;
        Some((Ok(connection), (listener, permits, cut)))
    })
}

async fn accept_one(listener: &TcpListener, permits: Arc<Semaphore>, cut: Shutdown, limits: Limits) -> Connection {
    let permit = permits.acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%peer, %error, "connection lost before it began");
                    continue;
                }
                return Connection::new(stream, cut, limits.preface_time, permit);
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A channel to `address` (`host:port`, or `http://host:port`). It connects at the first call, and again after a loss;
/// a call fails within the connect time-out while the address does not answer. Must be called within a Tokio runtime.
pub fn channel(address: &str) -> Result<Channel, ServiceError> {
    Ok(endpoint(address)?.connect_lazy())
}

/// Like [`channel`], and connects now. `Unavailable` if nobody answers at the address.
pub async fn connect(address: &str) -> Result<Channel, ServiceError> {
    endpoint(address)?.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        ServiceError::not_applied(ErrorCode::Unavailable, format!("cannot connect to {address}: {cause}"))
    })
}

fn endpoint(address: &str) -> Result<Endpoint, ServiceError> {
    let host_and_port = address.strip_prefix("http://").unwrap_or(address);
    let invalid = || {
        let text = format!("`{address}` is not an address, write host:port");
        ServiceError::not_applied(ErrorCode::InvalidArgument, text)
    };
    let endpoint = Endpoint::from_shared(format!("http://{host_and_port}")).map_err(|_| invalid())?;
    let uri = endpoint.uri();
    if uri.port_u16().is_none() || uri.path() != "/" || uri.query().is_some() {
        return Err(invalid());
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES))
}
