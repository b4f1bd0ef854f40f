//! The HTTP interface, case by case: what is accepted, what is refused and with which words.
//!
//! All tests but a few share one server; each keeps to a directory of its own.

mod auth;
mod bodies;
mod broken_bodies;
mod conditions;
mod idempotency;
mod limits;
mod listing;
mod paths;
mod ranges;
mod routes;
mod slow;
mod version_two;

use crate::harness::RawAnswer;

/// Every error outside of the HTTP grammar itself is JSON with a stable code and a sentence.
#[track_caller]
fn is_json_error(answer: &RawAnswer, status: u16, code: &str, of: &str) {
    assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{of}: {}", answer.text());
    let kind = answer.header("content-type").unwrap_or("");
    assert!(kind.starts_with("application/json"), "{of}: its content type is {kind:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let message = body["error"]["message"].as_str().unwrap_or("");
    assert!(message.len() > 5, "{of}: says only {message:?}");
}

/// Where a client announces the SHA-256 of a body, in hex.
const DIGEST_HEADER: &str = "x-haystore-sha256";
