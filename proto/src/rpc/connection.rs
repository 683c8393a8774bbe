//! A server's side of one accepted connection: bounded in number, cut when the server must end, and given up when the
//! peer does not begin to speak.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bmq_common::Shutdown;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Bytes of what an HTTP/2 client sends first. A peer that has sent this many is left to HTTP/2's own keep-alive.
const PREFACE_LEN: usize = 24;

/// One accepted connection.
pub(super) struct Connection {
    stream: TcpStream,
    cut: BoxFuture<'static, ()>,
    /// Bytes of the preface still to come, and how long they may take; `None` once they are there.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    /// Counts this connection for as long as it lives.
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// `cut` makes every read and write fail once it has begun.
    pub(super) fn new(stream: TcpStream, cut: Shutdown, preface_time: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            cut: Box::pin(async move { cut.begun().await }),
            preface: Some((PREFACE_LEN, Box::pin(tokio::time::sleep(preface_time)))),
            _permit: permit,
        }
    }

    fn poll_still_wanted(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            // A future that has ended must not be polled again.
            self.cut = Box::pin(std::future::ready(()));
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server has ended"));
        }
        if let Some((_, time)) = &mut self.preface
            && time.as_mut().poll(context).is_ready()
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not speak HTTP/2"));
        }
        Ok(())
    }

    fn count_preface(&mut self, read: usize) {
        if let Some((missing, _)) = &mut self.preface {
            *missing = missing.saturating_sub(read);
            if *missing == 0 {
                self.preface = None;
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_still_wanted(context)?;
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buf);
        self.count_preface(buf.filled().len() - before);
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_still_wanted(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_still_wanted(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
