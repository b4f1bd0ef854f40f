//! Refusals: one map from failures to HTTP, and the headers that belong to them.

use hay_common::error::{ErrorCode, Failure, Remedy};
use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{Reply, json};

/// A failure on its way to a client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    failure: Failure,
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the rest of the request's body may still be on the wire and the connection can't be used again.
    closes: bool,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
}

impl Refusal {
    /// Of the code's own status.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Failure::new(code, message).into()
    }

    /// 405 with `Allow`.
    pub(crate) fn method(allowed: &'static str) -> Self {
        let mut refusal =
            Self::new(ErrorCode::MethodNotAllowed, format!("the method is not one of {allowed}"));
        refusal.headers.push((ALLOW, HeaderValue::from_static(allowed)));
        refusal
    }

    /// 416 with the size that ranges must stay in.
    pub(crate) fn range(size: u64) -> Self {
        let message = format!("no part of the range lies in the file of {size} bytes");
        let mut refusal = Self::new(ErrorCode::RangeNotSatisfiable, message);
        if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
            refusal.headers.push((CONTENT_RANGE, value));
        }
        refusal
    }

    /// With another status than the code's own.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The connection ends with this answer.
    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Codes between services mean nothing to a client: when the gateway's own repeats are used up, the service is
    /// simply not available.
    fn outward_code(&self) -> ErrorCode {
        match self.failure.code.remedy() {
            Remedy::Refresh => ErrorCode::Unavailable,
            _ => self.failure.code,
        }
    }

    /// The answer.
    pub(crate) fn into_reply(self) -> Reply {
        let code = self.outward_code();
        let status = self
            .status
            .or_else(|| StatusCode::from_u16(code.http_status()).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = ErrorBody { error: ErrorFields { code: code.as_str(), message: &self.failure.message } };
        let mut reply = json(status, &body);
        let headers = reply.headers_mut();
        headers.extend(self.headers);
        if code.remedy() == Remedy::RetryLater {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == ErrorCode::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"haystore\""));
        }
        if self.closes || code == ErrorCode::TooSlow {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, status: None, headers: Vec::new(), closes: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn every_code_has_an_answer_of_its_shape() {
        for code in ErrorCode::ALL {
            let reply = Refusal::new(*code, "why").into_reply();
            let outward = if code.remedy() == Remedy::Refresh { ErrorCode::Unavailable } else { *code };
            assert_eq!(reply.status().as_u16(), outward.http_status(), "{code}");
            assert_eq!(
                reply.headers().contains_key(RETRY_AFTER),
                outward.remedy() == Remedy::RetryLater,
                "{code}"
            );
            assert_eq!(reply.headers().contains_key(WWW_AUTHENTICATE), reply.status() == 401, "{code}");
            let bytes = reply.into_body().collect().await.unwrap().to_bytes();
            let expected = format!("{{\"error\":{{\"code\":\"{outward}\",\"message\":\"why\"}}}}");
            assert_eq!(bytes, expected.as_bytes(), "{code}");
        }
    }

    #[test]
    fn details_stand_in_headers() {
        let reply = Refusal::range(10).into_reply();
        assert_eq!(reply.headers().get(CONTENT_RANGE).unwrap(), "bytes */10");
        let reply = Refusal::method("GET, HEAD").into_reply();
        assert_eq!(reply.headers().get(ALLOW).unwrap(), "GET, HEAD");
        let reply = Refusal::new(ErrorCode::TooSlow, "x").into_reply();
        assert_eq!(reply.headers().get(CONNECTION).unwrap(), "close");
    }
}
