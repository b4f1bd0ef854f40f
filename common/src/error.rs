//! Errors as the caller of a service sees them: a stable code, a text, and what to do about it.
//!
//! Inside, every operation has an error enum of its own. It becomes a [`Failure`] where it leaves a service;
//! the code is part of the interface, over HTTP too, and never changes its meaning.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the caller should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The request is wrong, or the state forbids it: mend it, don't repeat it.
    FixRequest,
    /// It may go through later as it is.
    RetryLater,
    /// The caller's own cached knowledge (lease, session, location) is old: get it anew and repeat.
    Refresh,
    /// Nothing that the caller can do; somebody has to look.
    GiveUp,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $http:literal, $remedy:ident;)*) => {
        /// Stable error codes. The text is what stands in `{"error":{"code":…}}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes, for tables and tests.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that carries it.
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }

            /// What the caller should do.
            pub fn remedy(self) -> Remedy {
                match self { $(Self::$name => Remedy::$remedy,)* }
            }

            /// The code of a stable text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// No token, or one that nobody knows.
    Unauthenticated = "unauthenticated", 401, FixRequest;
    /// A known principal that may not do this.
    Forbidden = "forbidden", 403, FixRequest;
    /// A path that breaks the rules of paths.
    InvalidPath = "invalid_path", 400, FixRequest;
    /// A header, parameter or field that can't be used.
    InvalidArgument = "invalid_argument", 400, FixRequest;
    /// Nothing is there.
    NotFound = "not_found", 404, FixRequest;
    /// The method does not exist there.
    MethodNotAllowed = "method_not_allowed", 405, FixRequest;
    /// A file was meant, a directory is there.
    IsDirectory = "is_directory", 409, FixRequest;
    /// A directory was meant, or would be needed above the path, and a file is there.
    NotDirectory = "not_directory", 409, FixRequest;
    /// Only empty directories go without `recursive`.
    DirectoryNotEmpty = "directory_not_empty", 409, FixRequest;
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed = "precondition_failed", 412, FixRequest;
    /// No part of the range lies in the file.
    RangeNotSatisfiable = "range_not_satisfiable", 416, FixRequest;
    /// The body ended early, or was cut.
    IncompleteBody = "incomplete_body", 400, FixRequest;
    /// The bytes that arrived do not have the digest that was announced.
    DigestMismatch = "digest_mismatch", 400, FixRequest;
    /// A body, header or list beyond its limit.
    TooLarge = "too_large", 413, FixRequest;
    /// The tenant's hard limit.
    QuotaExceeded = "quota_exceeded", 413, FixRequest;
    /// The same `Idempotency-Key` came with another request.
    IdempotencyConflict = "idempotency_conflict", 422, FixRequest;
    /// The client sent too slowly to keep its buffer.
    TooSlow = "too_slow", 408, FixRequest;
    /// The free-space reserve is reached.
    StorageFull = "storage_full", 507, RetryLater;
    /// Too much is in work.
    Overloaded = "overloaded", 503, RetryLater;
    /// A part can't be reached, or is not ready.
    Unavailable = "unavailable", 503, RetryLater;
    /// It took too long; whether it happened is not known.
    DeadlineExceeded = "deadline_exceeded", 504, RetryLater;
    /// The ingest session is over: open another.
    SessionExpired = "session_expired", 503, Refresh;
    /// The command is older than the answers that are kept: it is refused, never applied.
    SequencePassed = "sequence_passed", 503, Refresh;
    /// The volume has a higher epoch.
    StaleEpoch = "stale_epoch", 503, Refresh;
    /// The volume takes no more needles here: sealed, full or read-only.
    VolumeNotWritable = "volume_not_writable", 503, Refresh;
    /// No such volume on that server.
    VolumeNotFound = "volume_not_found", 503, Refresh;
    /// The volume already holds that (key, cookie): draw another cookie.
    NeedleExists = "needle_exists", 503, Refresh;
    /// A copy that a commit relies on is condemned or gone: store the chunk again.
    CopyGone = "copy_gone", 503, Refresh;
    /// This member does not lead.
    NotLeader = "not_leader", 503, Refresh;
    /// Stored bytes do not match their checksum, and no other copy could be read.
    Corrupt = "corrupt", 500, GiveUp;
    /// A fault of ours.
    Internal = "internal", 500, GiveUp;
    /// One part of the cluster does not take the credential of another: their keys or their clocks differ. Nothing that a
    /// user's token has to do with.
    CredentialRefused = "credential_refused", 503, RetryLater;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error on its way to a caller in another service or at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind, for programs.
    pub code: ErrorCode,
    /// What exactly and what to do, for people. Names the thing; holds no secret.
    pub message: String,
}

impl Failure {
    /// A failure of kind `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_from_its_text() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(*code));
            assert!((400..600).contains(&code.http_status()));
        }
    }
}
