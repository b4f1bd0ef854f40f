//! Failures as gRPC statuses. The stable code travels as metadata beside gRPC's own, coarser one.

use hay_common::error::{ErrorCode, Failure};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The metadata key of the stable code.
pub const CODE_KEY: &str = "hay-code";

/// The metadata key of the address of who leads, beside [`ErrorCode::NotLeader`].
pub const LEADER_KEY: &str = "hay-leader";

/// `status`, and where the caller finds who leads.
pub fn with_leader(mut status: Status, address: &str) -> Status {
    // An address that can't stand in metadata names nobody; the caller goes through its own list.
    if let Ok(address) = MetadataValue::try_from(address) {
        status.metadata_mut().insert(LEADER_KEY, address);
    }
    status
}

/// Where `status` says that the leader is.
pub fn leader_of(status: &Status) -> Option<String> {
    let address = status.metadata().get(LEADER_KEY)?.to_str().ok()?;
    (!address.is_empty()).then(|| address.to_owned())
}

/// The status that carries `failure`.
pub fn to_status(failure: Failure) -> Status {
    let mut metadata = MetadataMap::with_capacity(1);
    metadata.insert(CODE_KEY, MetadataValue::from_static(failure.code.as_str()));
    Status::with_metadata(grpc_code(failure.code), failure.message, metadata)
}

/// The failure in `status`: with the code that [`to_status`] put there, or for a status of the transport's own with the
/// nearest one.
pub fn to_failure(status: &Status) -> Failure {
    let code = match status.metadata().get(CODE_KEY) {
        Some(stable) => {
            stable.to_str().ok().and_then(ErrorCode::parse).unwrap_or_else(|| nearest(status.code()))
        }
        // No handler's: h2 calls a connection that was reset in the middle of a call an internal error.
        None if status.code() == Code::Internal => ErrorCode::Unavailable,
        None => nearest(status.code()),
    };
    Failure::new(code, status.message())
}

fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::Unauthenticated | ErrorCode::CredentialRefused => Code::Unauthenticated,
        ErrorCode::Forbidden => Code::PermissionDenied,
        ErrorCode::InvalidPath
        | ErrorCode::InvalidArgument
        | ErrorCode::IncompleteBody
        | ErrorCode::DigestMismatch
        | ErrorCode::TooSlow => Code::InvalidArgument,
        ErrorCode::NotFound | ErrorCode::VolumeNotFound => Code::NotFound,
        ErrorCode::MethodNotAllowed => Code::Unimplemented,
        ErrorCode::NeedleExists => Code::AlreadyExists,
        ErrorCode::IsDirectory
        | ErrorCode::NotDirectory
        | ErrorCode::DirectoryNotEmpty
        | ErrorCode::PreconditionFailed
        | ErrorCode::IdempotencyConflict
        | ErrorCode::SessionExpired
        | ErrorCode::SequencePassed
        | ErrorCode::StaleEpoch
        | ErrorCode::VolumeNotWritable
        | ErrorCode::CopyGone
        | ErrorCode::NotLeader => Code::FailedPrecondition,
        ErrorCode::RangeNotSatisfiable | ErrorCode::TooLarge => Code::OutOfRange,
        ErrorCode::QuotaExceeded | ErrorCode::StorageFull | ErrorCode::Overloaded => Code::ResourceExhausted,
        ErrorCode::Unavailable => Code::Unavailable,
        ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorCode::Corrupt => Code::DataLoss,
        ErrorCode::Internal => Code::Internal,
    }
}

/// For a status that no handler made: tonic's or the connection's.
fn nearest(code: Code) -> ErrorCode {
    match code {
        // What a user may do, handlers say, and with a code of their own.
        Code::Unauthenticated => ErrorCode::CredentialRefused,
        Code::PermissionDenied => ErrorCode::Forbidden,
        Code::InvalidArgument => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        // Of tonic's own, these mean a message beyond the limit.
        Code::OutOfRange => ErrorCode::TooLarge,
        Code::ResourceExhausted => ErrorCode::Overloaded,
        // tonic answers its own time-outs with Cancelled; whether the call happened is not known.
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::DeadlineExceeded,
        // Unknown is what a broken connection gives.
        Code::Unavailable | Code::Unknown | Code::Aborted => ErrorCode::Unavailable,
        Code::DataLoss => ErrorCode::Corrupt,
        Code::Ok | Code::AlreadyExists | Code::FailedPrecondition | Code::Unimplemented | Code::Internal => {
            ErrorCode::Internal
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_way() {
        for code in ErrorCode::ALL {
            let failure = Failure::new(*code, "volume 7 is sealed");
            assert_eq!(to_failure(&to_status(failure.clone())), failure);
        }
    }

    #[test]
    fn the_leaders_address_goes_along() {
        let status = to_status(Failure::new(ErrorCode::NotLeader, "x"));
        assert_eq!(leader_of(&status), None);
        let status = with_leader(status, "10.0.0.2:7000");
        assert_eq!(leader_of(&status).as_deref(), Some("10.0.0.2:7000"));
        assert_eq!(to_failure(&status).code, ErrorCode::NotLeader);
        assert_eq!(leader_of(&with_leader(Status::internal("x"), "no\naddress")), None);
    }

    #[test]
    fn a_foreign_status_finds_a_near_code() {
        assert_eq!(to_failure(&Status::unavailable("x")).code, ErrorCode::Unavailable);
        assert_eq!(to_failure(&Status::cancelled("Timeout expired")).code, ErrorCode::DeadlineExceeded);
        assert_eq!(to_failure(&Status::internal("h2 protocol error")).code, ErrorCode::Unavailable);
        assert_eq!(to_failure(&Status::unauthenticated("x")).code, ErrorCode::CredentialRefused);
        let mut unknown_code = Status::internal("x");
        unknown_code.metadata_mut().insert(CODE_KEY, MetadataValue::from_static("from_the_future"));
        assert_eq!(to_failure(&unknown_code).code, ErrorCode::Internal);
    }
}
