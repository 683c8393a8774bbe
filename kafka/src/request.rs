//! One request from the bytes of its frame.

use bytes::{Buf, Bytes};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

use crate::response::{ResponseFrame, encode_response};
use crate::supported::{self, SupportedApi};
use crate::walk::{WalkError, skip_tagged_fields, walk};

/// A request of a supported version. The strings and byte arrays of its body are slices of the frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub api_key: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
    pub body: RequestKind,
}

/// Why a frame is not a request that can be done. If [`Self::answer`] has an answer it is sent and the connection goes
/// on. Otherwise the connection is closed, as Kafka does: a client that is not understood cannot be told so in a way
/// that it is sure to understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("a frame of {0} bytes ends inside its request header")]
    Header(usize),
    #[error("request number {0} is not supported")]
    UnsupportedApi(i16),
    #[error("{api_key:?} version {version} is not supported")]
    UnsupportedVersion { api_key: ApiKey, version: i16, correlation_id: i32 },
    #[error("{api_key:?} version {version} is malformed")]
    Malformed { api_key: ApiKey, version: i16, source: WalkError },
    /// The walk looks at lengths only; this is the rest, such as text that is not UTF-8.
    #[error("{api_key:?} version {version} cannot be decoded: {reason}")]
    Undecodable { api_key: ApiKey, version: i16, reason: String },
}

impl RequestError {
    /// An ApiVersions request of a version from the future is answered in version 0, which every client reads, with
    /// the versions that there are.
    pub fn answer(&self) -> Option<ResponseFrame> {
        let RequestError::UnsupportedVersion { api_key: ApiKey::ApiVersions, correlation_id, .. } = self else {
            return None;
        };
        let versions = ApiVersionsResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code())
            .with_api_keys(supported::advertised());
        encode_response(*correlation_id, 0, ResponseKind::ApiVersions(versions)).ok()
    }
}

/// Reads the request of a frame, which comes without its length. Nothing is decoded before a walk over the body has
/// shown that its lengths are true. Bytes after the body are not looked at, as in Kafka.
pub fn parse_request(frame: Bytes) -> Result<Request, RequestError> {
    let (header, after_header) = Header::parse(&frame)?;
    let Header { api, version, correlation_id, client_id } = header;
    let body = match api.key {
        ApiKey::ApiVersions => api_versions(&frame, after_header, api, version),
        _ => decode_body(&frame, after_header, api, version)?,
    };
    Ok(Request { api_key: api.key, version, correlation_id, client_id, body })
}

/// What stands before the tagged fields of a request header.
struct Header {
    api: &'static SupportedApi,
    version: i16,
    correlation_id: i32,
    client_id: Option<String>,
}

impl Header {
    /// The header, and what comes after it: tagged fields if the version is flexible, then the body.
    fn parse(frame: &[u8]) -> Result<(Self, &[u8]), RequestError> {
        let ends_early = |_| RequestError::Header(frame.len());
        let mut rest = frame;
        let api_key = rest.try_get_i16().map_err(ends_early)?;
        let version = rest.try_get_i16().map_err(ends_early)?;
        let correlation_id = rest.try_get_i32().map_err(ends_early)?;
        let api = supported::find(api_key).ok_or(RequestError::UnsupportedApi(api_key))?;
        if !api.supports(version) {
            return Err(RequestError::UnsupportedVersion { api_key: api.key, version, correlation_id });
        }
        let client_id_len = rest.try_get_i16().map_err(ends_early)?;
        let client_id = match usize::try_from(client_id_len) {
            Ok(len) => {
                let (text, after) = rest.split_at_checked(len).ok_or(RequestError::Header(frame.len()))?;
                rest = after;
                Some(String::from_utf8_lossy(text).into_owned())
            }
            Err(_) => None,
        };
        Ok((Self { api, version, correlation_id, client_id }, rest))
    }
}

fn decode_body(
    frame: &Bytes,
    after_header: &[u8],
    api: &'static SupportedApi,
    version: i16,
) -> Result<RequestKind, RequestError> {
    let malformed = |source| RequestError::Malformed { api_key: api.key, version, source };
    let body = match api.schema.is_flexible(version) {
        true => skip_tagged_fields(after_header).map_err(malformed)?,
        false => after_header,
    };
    let after_body = walk(api.schema, version, body).map_err(malformed)?;
    let undecodable = |reason| RequestError::Undecodable { api_key: api.key, version, reason };
    let mut body = frame.slice_ref(body);
    let decoded =
        RequestKind::decode(api.key, &mut body, version).map_err(|error| undecodable(format!("{error:#}")))?;
    match body.len() == after_body.len() {
        true => Ok(decoded),
        false => Err(undecodable(format!("{} bytes left over", body.len()))),
    }
}

/// The one request that is taken whatever its body says. It is a client's first and says nothing but the client's name,
/// and there are clients about that get its flexible form wrong.
fn api_versions(frame: &Bytes, after_header: &[u8], api: &'static SupportedApi, version: i16) -> RequestKind {
    let unknown = StrBytes::from_static_str("unknown");
    decode_body(frame, after_header, api, version).unwrap_or_else(|_| {
        let nameless = ApiVersionsRequest::default()
            .with_client_software_name(unknown.clone())
            .with_client_software_version(unknown);
        RequestKind::ApiVersions(nameless)
    })
}

#[cfg(test)]
mod tests;
