//! How a process listens for gRPC. Invariants:
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
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tracing::{debug, warn};

use super::connection::Connection;

/// Bytes that a peer may have under way on one stream, and on one connection, before it must wait.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Large frames, so that a message of a stream of batches is one or two.
pub(super) const FRAME_BYTES: u32 = 1 << 20;

/// A status carries its message twice, once in base 64.
pub(super) const HEADER_LIST_BYTES: u32 = 16 << 10;

/// How often an idle peer is asked whether it is there, and how long it may take to answer.
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

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
