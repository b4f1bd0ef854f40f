//! How a command ends: its exit code, and for a failure what is said about it.

use hay_common::error::ErrorCode;

use crate::api::ApiError;
use crate::config::ConfigError;
use crate::remote::RemotePathError;

/// Exit codes. They are documented in `hay --help` and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Ok = 0,
    /// It failed, or the comparison found a difference.
    Failed = 1,
    /// The command line or the credentials can't be used.
    Usage = 2,
    /// Nothing is at that path.
    NotFound = 3,
    /// No token, a wrong one, or one that may not do this.
    Denied = 4,
    /// The server can't be reached, or the connection broke for good.
    Unreachable = 5,
    /// Some of it was done, some failed.
    Partial = 6,
}

/// The end of a command that could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The exit code.
    pub exit: Exit,
    /// A stable word for programs.
    pub code: String,
    /// What happened to what, and the way out. Empty: nothing is to be said.
    pub message: String,
}

impl Stop {
    /// The command line asks for something that can't be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, code: "usage".into(), message: message.into() }
    }

    /// A local cause: files, terminal, system.
    pub fn local(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, code: "local".into(), message: message.into() }
    }

    /// Whether what is still to be done would only fail in the same way, for a long time.
    pub fn ends_everything(&self) -> bool {
        self.exit == Exit::Unreachable || self.code == ErrorCode::Unauthenticated.as_str()
    }

    /// The same end, with what it was about in front.
    pub fn about(mut self, what: &str) -> Self {
        // A silent end stays silent.
        if !self.message.is_empty() {
            self.message = format!("{what}: {}", self.message);
        }
        self
    }
}

/// The exit code for an error code of the server's.
fn exit_for(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => Exit::Denied,
        _ => Exit::Failed,
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        let (exit, code) = match &error {
            ApiError::Connection { .. } => (Exit::Unreachable, "unreachable".to_owned()),
            ApiError::Refused { code: Some(code), .. } => (exit_for(*code), code.to_string()),
            ApiError::Refused { status, code: None, .. } => {
                let exit = match status {
                    404 => Exit::NotFound,
                    401 | 403 => Exit::Denied,
                    _ => Exit::Failed,
                };
                (exit, format!("http_{status}"))
            }
            ApiError::Answer { .. } => (Exit::Failed, "unexpected_answer".to_owned()),
            ApiError::Changed { .. } => (Exit::Failed, "changed".to_owned()),
            ApiError::Cancelled => (Exit::Failed, "cancelled".to_owned()),
        };
        Self { exit, code, message: error.to_string() }
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::Usage, code: "credentials".into(), message: error.to_string() }
    }
}

impl From<RemotePathError> for Stop {
    fn from(error: RemotePathError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        // `hay ls | head`: the reader has seen enough, which is no failure to speak of.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Ok, code: "closed".into(), message: String::new() };
        }
        Self::local(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_have_the_documented_exit_codes() {
        let refused = |code: ErrorCode| {
            Stop::from(ApiError::Refused {
                status: code.http_status(),
                code: Some(code),
                message: "x".into(),
            })
            .exit
        };
        assert_eq!(refused(ErrorCode::NotFound), Exit::NotFound);
        assert_eq!(refused(ErrorCode::Unauthenticated), Exit::Denied);
        assert_eq!(refused(ErrorCode::Forbidden), Exit::Denied);
        assert_eq!(refused(ErrorCode::StorageFull), Exit::Failed);
        let gone = ApiError::Connection { server: "http://x".into(), cause: "refused".into() };
        assert_eq!(Stop::from(gone).exit, Exit::Unreachable);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let stop = Stop::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((stop.exit, stop.message.as_str()), (Exit::Ok, ""));
    }
}
