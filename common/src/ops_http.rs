//! The operators' HTTP port: `/livez`, `/readyz`, `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::shutdown::Shutdown;

/// How long connections that are open at the shutdown get to finish.
const DRAIN: Duration = Duration::from_secs(1);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The address could not be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for operations")]
pub struct BindError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// A bound port, which answers once `run` is polled.
#[derive(Debug)]
pub struct OpsServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    shown: Shown,
}

/// What the port shows.
#[derive(Clone, Debug)]
struct Shown {
    readiness: Readiness,
    metrics: Metrics,
}

impl OpsServer {
    /// Port 0 takes a free one; see `local_addr`.
    pub async fn bind(address: SocketAddr, readiness: Readiness, metrics: Metrics) -> Result<Self, BindError> {
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            let local_addr = listener.local_addr()?;
            Ok((listener, local_addr))
        };
        let (listener, local_addr) = listening.await.map_err(|source| BindError { address, source })?;
        Ok(OpsServer { listener, local_addr, shown: Shown { readiness, metrics } })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until the shutdown begins, then lets open requests finish for a second.
    pub async fn run(self, shutdown: Shutdown) -> io::Result<()> {
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self.shown);
        let begun = shutdown.clone();
        let serve = axum::serve(self.listener, routes).with_graceful_shutdown(async move { begun.begun().await });
        let cut_off = async {
            shutdown.begun().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = async { serve.await } => served,
            () = cut_off => Ok(()),
        }
    }
}

async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let not_ready = shown.readiness.not_ready();
    if not_ready.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = not_ready.iter().map(|missing| format!("{}: {}\n", missing.name, missing.reason));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], shown.metrics.encode())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get_text(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn answers_and_stops() {
        let (readiness, metrics, shutdown) = (Readiness::new(), Metrics::new(), Shutdown::new());
        let flag = readiness.register("meta");
        metrics.register_gauge("bmq_test_open_files", "Files open").set(4);
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = OpsServer::bind(any_port, readiness, metrics).await.unwrap();
        let address = server.local_addr();
        let running = tokio::spawn(server.run(shutdown.clone()));

        let check = async |path: &str, status: &str, body: &str| {
            let answer = get_text(address, path).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
            assert!(answer.contains(body), "{path}: {answer}");
        };
        check("/livez", "200", "ok").await;
        flag.set(false, "no answer from 127.0.0.1:1");
        check("/readyz", "503", "meta: no answer from 127.0.0.1:1\n").await;
        flag.set(true, "");
        check("/readyz", "200", "ok").await;
        check("/metrics", "200", "bmq_test_open_files 4\n").await;
        check("/elsewhere", "404", "").await;

        // A request that never ends must not hold up the stop for longer than the drain.
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
        shutdown.begin();
        running.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = OpsServer::bind(address, Readiness::new(), Metrics::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address} for operations"));
    }
}
