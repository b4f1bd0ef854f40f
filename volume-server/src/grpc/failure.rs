//! The one map from the store's errors to codes.

use hay_common::error::{ErrorCode, Failure};

use crate::store::{AppendError, ReadError};

pub(crate) fn append(error: AppendError) -> Failure {
    let code = match &error {
        AppendError::NoVolume(_) => ErrorCode::VolumeNotFound,
        AppendError::StaleEpoch { .. } => ErrorCode::StaleEpoch,
        AppendError::Exists { .. } => ErrorCode::NeedleExists,
        AppendError::Sealed(_) | AppendError::ReadOnly { .. } | AppendError::Full(_) => {
            ErrorCode::VolumeNotWritable
        }
        AppendError::TooLarge { .. } => ErrorCode::TooLarge,
        AppendError::Codec(_) => ErrorCode::InvalidArgument,
        AppendError::StorageFull => ErrorCode::StorageFull,
        AppendError::Overloaded(_) => ErrorCode::Overloaded,
        // Not "unavailable", by which writers would avoid this server: it is well, the volume alone is not.
        AppendError::ReplicaFailed { .. } | AppendError::ReplicaRefused { .. } | AppendError::Filling(_) => {
            ErrorCode::VolumeNotWritable
        }
        AppendError::Closing | AppendError::Unconfirmed(_) => ErrorCode::Unavailable,
    };
    Failure::new(code, error.to_string())
}

pub(crate) fn read(error: ReadError) -> Failure {
    let code = match &error {
        ReadError::NoVolume(_) => ErrorCode::VolumeNotFound,
        ReadError::Absent(_) => ErrorCode::NotFound,
        ReadError::Corrupt { .. } | ReadError::Lost(_) | ReadError::Broken { .. } => ErrorCode::Corrupt,
        // Another replica may have it; the same one may after a restart.
        ReadError::Io { .. } | ReadError::Closing | ReadError::Unconfirmed(_) => ErrorCode::Unavailable,
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::new(code, format!("{error}{cause}"))
}
