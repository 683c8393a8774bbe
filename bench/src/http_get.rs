//! One HTTP GET of a small page, for the operators' ports of our own processes.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(5);

/// A page is bounded, whatever answers at the address.
const MAX_PAGE_BYTES: u64 = 16 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub body: String,
}

/// Gets `path` from `address` (`host:port`).
pub async fn http_get(address: &str, path: &str) -> anyhow::Result<Page> {
    match tokio::time::timeout(DEADLINE, get(address, path)).await {
        Ok(page) => page,
        Err(_) => bail!("no answer within {DEADLINE:?}"),
    }
}

async fn get(address: &str, path: &str) -> anyhow::Result<Page> {
    let mut stream = TcpStream::connect(address).await?;
    // Version 1.0, so that the answer comes in one piece and ends with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_PAGE_BYTES).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Page { status: status.context("the answer is not HTTP")?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use bmq_common::{Metrics, OpsServer, Readiness, Shutdown};

    use super::*;

    #[tokio::test]
    async fn gets_from_a_real_port() {
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        readiness.register("store").set(false, "starting");
        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let server = OpsServer::bind(any_port, readiness, Metrics::new()).await.unwrap();
        let address = server.local_addr().to_string();
        let running = tokio::spawn(server.run(shutdown.clone()));
        let page = http_get(&address, "/readyz").await.unwrap();
        assert_eq!(page, Page { status: 503, body: "store: starting\n".to_owned() });
        assert_eq!(http_get(&address, "/livez").await.unwrap().status, 200);
        shutdown.begin();
        running.await.unwrap().unwrap();
        assert!(http_get(&address, "/livez").await.is_err());
    }
}
