//! A Kafka client that sends what a test makes and reads what comes.

use bmq_kafka::messages::{ApiKey, RequestHeader, ResponseHeader};
use bmq_kafka::{Decodable, Encodable, StrBytes};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{HeaderVersion, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::in_time;

pub struct KafkaClient {
    stream: TcpStream,
    /// The number of the next request, and of the next response.
    next_request: i32,
    next_response: i32,
}

impl KafkaClient {
    pub async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, next_request: 1, next_response: 1 }
    }

    /// One request and its response.
    pub async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        self.send(version, &request).await;
        self.receive::<R>(version).await
    }

    /// A request that is not answered was sent.
    pub fn skip_one(&mut self) {
        self.next_response += 1;
    }

    /// Bytes that need not be a request.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Waits until the proxy closes the connection; what it has sent before does not matter.
    pub async fn closed(mut self) {
        let mut rest = Vec::new();
        // A connection that is reset is closed too.
        let _ = in_time(self.stream.read_to_end(&mut rest)).await;
    }

    /// Closes the client's side only.
    pub async fn close_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub async fn send<R: Request>(&mut self, version: i16, request: &R) {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next_request)
            .with_client_id(Some(StrBytes::from_static_str("test")));
        self.next_request += 1;
        header.encode(&mut frame, R::header_version(version)).unwrap();
        request.encode(&mut frame, version).unwrap();
        let mut message = BytesMut::new();
        message.put_i32(frame.len() as i32);
        message.extend_from_slice(&frame);
        self.stream.write_all(&message).await.unwrap();
    }

    pub async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let name = ApiKey::try_from(R::KEY).unwrap();
        let length = in_time(self.stream.read_i32()).await;
        let length = length.unwrap_or_else(|error| panic!("{name:?} v{version} was not answered: {error}"));
        let mut frame = vec![0; length as usize];
        in_time(self.stream.read_exact(&mut frame)).await.unwrap();
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, self.next_response);
        self.next_response += 1;
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(!frame.has_remaining(), "{name:?} v{version}: {} bytes too many", frame.len());
        response
    }
}

/// A text of the protocol.
pub fn text<T: From<StrBytes>>(text: &str) -> T {
    StrBytes::from_string(text.to_owned()).into()
}
