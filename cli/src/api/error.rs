//! What can come back instead of an answer.

use hay_common::error::{ErrorCode, Remedy};
use serde::Deserialize;

/// A request that did not do what it was for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it broke before the answer was whole. Whether the request acted is not known.
    #[error("{server} can't be reached: {cause}")]
    Connection {
        /// The server's address.
        server: String,
        /// What the connection said.
        cause: String,
    },
    /// The server answered with an error.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The error code, where the body has one that this build knows.
        code: Option<ErrorCode>,
        /// What the server says.
        message: String,
    },
    /// An answer that is none of the interface.
    #[error("unexpected answer to {what}: {cause}")]
    Answer {
        /// Which request.
        what: String,
        /// What was odd.
        cause: String,
    },
    /// The file was replaced while it was being read.
    #[error("{what} was changed on the server while it was being read")]
    Changed {
        /// Which file.
        what: String,
    },
    /// Whoever took the bytes takes no more.
    #[error("cancelled")]
    Cancelled,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: String,
    message: String,
}

/// What `/readyz` says: which role can't do its work, and why.
#[derive(Deserialize)]
struct Readiness {
    not_ready: Vec<(String, String)>,
}

fn not_ready(body: &[u8]) -> Option<String> {
    let readiness: Readiness = serde_json::from_slice(body).ok()?;
    let reasons: Vec<String> =
        readiness.not_ready.iter().map(|(role, reason)| format!("{role}: {reason}")).collect();
    Some(format!("the server is not ready ({})", reasons.join("; ")))
}

impl ApiError {
    /// The error that a status and a body of at most [`super::client::ERROR_BYTES_MAX`] bytes say.
    pub fn from_body(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { error }) => {
                Self::Refused { status, code: ErrorCode::parse(&error.code), message: error.message }
            }
            // HEAD has no body; proxies have bodies of their own.
            Err(_) => {
                let code = match status {
                    401 => Some(ErrorCode::Unauthenticated),
                    403 => Some(ErrorCode::Forbidden),
                    404 => Some(ErrorCode::NotFound),
                    412 => Some(ErrorCode::PreconditionFailed),
                    416 => Some(ErrorCode::RangeNotSatisfiable),
                    503 => Some(ErrorCode::Unavailable),
                    507 => Some(ErrorCode::StorageFull),
                    _ => None,
                };
                let message = not_ready(body).unwrap_or_else(|| match status {
                    401 => "the server does not know this token".to_owned(),
                    404 => "nothing is there".to_owned(),
                    _ => format!("the server answered {status}"),
                });
                Self::Refused { status, code, message }
            }
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }

    /// Whether the same request may go through a little later. A full disk is not mended by asking again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } => true,
            Self::Refused { code: Some(ErrorCode::StorageFull), .. } => false,
            Self::Refused { code: Some(code), .. } => {
                matches!(code.remedy(), Remedy::RetryLater | Remedy::Refresh)
            }
            Self::Refused { status, code: None, .. } => matches!(status, 502..=504),
            Self::Answer { .. } | Self::Changed { .. } | Self::Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_with_code_and_message_is_taken_over() {
        let error =
            ApiError::from_body(404, br#"{"error":{"code":"not_found","message":"/a: nothing is there"}}"#);
        assert_eq!(error.code(), Some(ErrorCode::NotFound));
        assert_eq!(error.to_string(), "/a: nothing is there");
        assert!(!error.is_transient());
    }

    #[test]
    fn what_may_pass_later_is_told_from_what_will_not() {
        let refused = |code: &str| {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
            ApiError::from_body(503, body.as_bytes())
        };
        assert!(refused("overloaded").is_transient());
        assert!(refused("session_expired").is_transient());
        assert!(!refused("storage_full").is_transient());
        assert!(!refused("precondition_failed").is_transient());
        assert!(ApiError::from_body(502, b"<html>").is_transient());
        assert!(!ApiError::from_body(500, b"").is_transient());
        assert_eq!(ApiError::from_body(404, b"").code(), Some(ErrorCode::NotFound));
    }

    #[test]
    fn a_server_that_is_not_ready_says_why() {
        let error = ApiError::from_body(503, br#"{"ready":false,"not_ready":[["filer","no leader"]]}"#);
        assert_eq!(error.to_string(), "the server is not ready (filer: no leader)");
        assert!(error.is_transient());
    }
}
