//! How a process connects to another, and what it says when it cannot.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::listener::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, HEADER_LIST_BYTES, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES,
};
use super::status::from_status;
use crate::{ErrorCode, ServiceError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For the first answer on a connection: a server that is busy still gets time.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks that `address` is `host:port`, or `http://host:port`, without connecting.
pub fn check_address(address: &str) -> Result<(), ServiceError> {
    endpoint(address).map(drop)
}

/// A channel to `address` (`host:port`, or `http://host:port`). It connects at the first call, and again after a loss;
/// a call fails within the connect time-out while the address does not answer. Must be called within a Tokio runtime.
pub fn channel(address: &str) -> Result<Channel, ServiceError> {
    Ok(endpoint(address)?.connect_lazy())
}

/// Like [`channel`], connects now, and sees that one of our servers answers. `Unavailable` if nobody does,
/// `Unsupported` if the port is another kind of server's.
pub async fn connect(address: &str) -> Result<Channel, ServiceError> {
    let unreachable = |reason: &str| {
        ServiceError::not_applied(ErrorCode::Unavailable, format!("cannot reach bmq at {address}: {reason}"))
    };
    let channel = endpoint(address)?.connect().await.map_err(|error| unreachable(&reason(&error)))?;
    let mut health = HealthClient::new(channel.clone());
    let greeting = health.check(HealthCheckRequest::default());
    let status = match timeout(GREETING_TIMEOUT, greeting).await {
        // Whatever the answer is: a server that is about to stop says so itself to each call.
        Ok(Ok(_)) => return Ok(channel),
        Ok(Err(status)) => status,
        Err(_) => return Err(unreachable(&format!("no answer within {GREETING_TIMEOUT:?}"))),
    };
    if status.code() == Code::Unimplemented || speaks_http_1(address).await {
        let text = format!("{address} is not bmq's gRPC port: what answers there is another kind of server");
        return Err(ServiceError::not_applied(ErrorCode::Unsupported, text));
    }
    Err(unreachable(&from_status(&status).message))
}

fn host_and_port(address: &str) -> &str {
    address.strip_prefix("http://").unwrap_or(address)
}

fn endpoint(address: &str) -> Result<Endpoint, ServiceError> {
    let invalid = || {
        let text = format!("`{address}` is not an address, host:port expected");
        ServiceError::not_applied(ErrorCode::InvalidArgument, text)
    };
    let endpoint = Endpoint::from_shared(format!("http://{}", host_and_port(address))).map_err(|_| invalid())?;
    let uri = endpoint.uri();
    let names_a_port = uri.port_u16().is_some() && uri.host().is_some_and(|host| !host.is_empty());
    if !names_a_port || uri.path() != "/" || uri.query().is_some() {
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

/// The innermost cause, which alone says something.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(kind @ (io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut)) => kind.to_string(),
        _ => cause.to_string(),
    }
}

/// Whether what answers at the address is plain HTTP, such as the operators' port.
async fn speaks_http_1(address: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(host_and_port(address)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: bmq\r\nconnection: close\r\n\r\n").await?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(answer)
    };
    timeout(CONNECT_TIMEOUT, ask).await.is_ok_and(|answer| answer.is_ok_and(|answer| answer == *b"HTTP/1."))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        let check = |address: &str, expect: bool| assert_eq!(check_address(address).is_ok(), expect, "{address}");
        check("127.0.0.1:9640", true);
        check("[::1]:9640", true);
        check("broker-1.example:9640", true);
        check("http://broker-1:9640", true);
        check("broker-1", false);
        check(":9640", false);
        check("broker-1:99999", false);
        check("broker-1:port", false);
        check("broker-1:9640/path", false);
        check("https://broker-1:9640", false);
        check("", false);
        let error = check_address("nowhere").unwrap_err();
        assert_eq!((error.code, error.to_string().contains("host:port expected")), (ErrorCode::InvalidArgument, true));
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_somebody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let other = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                // The peer may be gone already.
                let _ = stream.write_all(answer).await;
                let _ = stream.read(&mut [0; 1024]).await;
            }
        });
        let error = connect(&address).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported, "{error}");
        assert!(error.message.starts_with(&format!("{address} is not bmq's gRPC port")), "{error}");
        other.abort();
        let _ = other.await;
        let error = connect(&address).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(error.to_string(), format!("cannot reach bmq at {address}: connection refused"));
    }
}
