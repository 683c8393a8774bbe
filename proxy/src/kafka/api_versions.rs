//! `ApiVersions`: which requests are served, in which versions.

use bmq_kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};
use bmq_kafka::{ResponseError, supported};

use super::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    // Clients tell what they are from version 3 on.
    let is_named = is_plain(&request.client_software_name) && is_plain(&request.client_software_version);
    if context.version >= 3 && !is_named {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(supported::advertised())
}

/// Letters and digits, with `-` and `.` between them.
fn is_plain(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric();
    let (bytes, is_mark) = (text.as_bytes(), |byte: &u8| matches!(byte, b'-' | b'.'));
    bytes.first().is_some_and(is_word)
        && bytes.last().is_some_and(is_word)
        && bytes.iter().all(|byte| is_word(byte) || is_mark(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clients() {
        let check = |text: &str, expect: bool| assert_eq!(is_plain(text), expect, "{text}");
        check("apache-kafka-java", true);
        check("4.1.0", true);
        check("x", true);
        check("", false);
        check("-x", false);
        check("a b", false);
    }
}
