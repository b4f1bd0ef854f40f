//! Between the generated messages and the domain types of `hay_common::model`.
//!
//! What comes in is checked here once: ids have their lengths, required fields are there, enums are known. The error
//! names the field.

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ContentHash, Cookie, CopyId, EntryId, Epoch, ManifestId, NeedleKey, VolumeId};
use hay_common::model;

use crate::v1;

/// A message that does not say what it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Bytes of another length than the field has.
    #[error("{field} has {actual} bytes instead of {wanted}")]
    Length {
        /// Which field.
        field: &'static str,
        /// Bytes it must have.
        wanted: usize,
        /// Bytes it has.
        actual: usize,
    },
    /// A required field is not there.
    #[error("{field} is missing")]
    Missing {
        /// Which field.
        field: &'static str,
    },
    /// A value that this version does not know, or that is out of range.
    #[error("{field} has the unknown value {value}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A text that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Self {
        Failure::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

impl From<ConvertError> for tonic::Status {
    fn from(error: ConvertError) -> Self {
        crate::rpc::to_status(error.into())
    }
}

/// Exactly `N` bytes of `field`.
pub fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
    bytes.try_into().map_err(|_| ConvertError::Length { field, wanted: N, actual: bytes.len() })
}

/// What a required message field holds.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing { field })
}

/// An id of 16 or 32 bytes.
pub trait WireId: Sized {
    /// From the bytes of `field`.
    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, ConvertError>;
    /// As a bytes field holds it.
    fn to_wire(&self) -> Bytes;
}

macro_rules! uuid_wire {
    ($($name:ty),* $(,)?) => {$(
        impl WireId for $name {
            fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, ConvertError> {
                Self::from_slice(bytes).ok_or(ConvertError::Length { field, wanted: 16, actual: bytes.len() })
            }

            fn to_wire(&self) -> Bytes {
                Bytes::copy_from_slice(self.as_bytes())
            }
        }
    )*};
}

uuid_wire!(
    EntryId,
    ManifestId,
    CopyId,
    hay_common::ids::TenantId,
    hay_common::ids::PrincipalId,
    hay_common::ids::SessionId,
    hay_common::ids::ClusterId,
    hay_common::ids::NodeId,
    hay_common::ids::Incarnation,
);

impl WireId for ContentHash {
    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, ConvertError> {
        array(field, bytes).map(Self)
    }

    fn to_wire(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

/// 16 bytes, big endian.
impl WireId for NeedleKey {
    fn from_wire(field: &'static str, bytes: &[u8]) -> Result<Self, ConvertError> {
        array(field, bytes).map(|bytes| Self(u128::from_be_bytes(bytes)))
    }

    fn to_wire(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }
}

impl From<model::Location> for v1::Location {
    fn from(location: model::Location) -> Self {
        use v1::location::Kind;
        let kind = match location {
            model::Location::Volume { volume, cookie } => {
                Kind::Volume(v1::VolumeLocation { volume: volume.0, cookie: cookie.0 })
            }
            model::Location::Staged { group, index, position } => {
                Kind::Staged(v1::StagedLocation { group, index, position })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Location> for model::Location {
    type Error = ConvertError;

    fn try_from(location: v1::Location) -> Result<Self, ConvertError> {
        use v1::location::Kind;
        Ok(match required("location.kind", location.kind)? {
            Kind::Volume(v) => Self::Volume { volume: VolumeId(v.volume), cookie: Cookie(v.cookie) },
            Kind::Staged(s) => Self::Staged { group: s.group, index: s.index, position: s.position },
        })
    }
}

impl From<model::Copy> for v1::Copy {
    fn from(copy: model::Copy) -> Self {
        Self {
            id: copy.id.to_wire(),
            location: Some(copy.location.into()),
            codec: u32::from(copy.codec.0),
            stored_bytes: copy.stored_bytes,
            condemned: copy.state == model::CopyState::Condemned,
            damaged: copy.state == model::CopyState::Damaged,
        }
    }
}

/// The codec in a message.
pub fn codec(field: &'static str, value: u32) -> Result<model::Codec, ConvertError> {
    let known = u16::try_from(value).map_err(|_| ConvertError::Unknown { field, value: u64::from(value) })?;
    Ok(model::Codec(known))
}

impl TryFrom<v1::Copy> for model::Copy {
    type Error = ConvertError;

    fn try_from(copy: v1::Copy) -> Result<Self, ConvertError> {
        Ok(Self {
            id: CopyId::from_wire("copy.id", &copy.id)?,
            location: required("copy.location", copy.location)?.try_into()?,
            codec: codec("copy.codec", copy.codec)?,
            stored_bytes: copy.stored_bytes,
            state: match (copy.condemned, copy.damaged) {
                (true, _) => model::CopyState::Condemned,
                (false, true) => model::CopyState::Damaged,
                (false, false) => model::CopyState::Live,
            },
        })
    }
}

impl From<model::Chunk> for v1::Chunk {
    fn from(chunk: model::Chunk) -> Self {
        Self { hash: chunk.hash.to_wire(), size: chunk.size }
    }
}

impl TryFrom<v1::Chunk> for model::Chunk {
    type Error = ConvertError;

    fn try_from(chunk: v1::Chunk) -> Result<Self, ConvertError> {
        Ok(Self { hash: ContentHash::from_wire("chunk.hash", &chunk.hash)?, size: chunk.size })
    }
}

impl From<model::LocatedChunk> for v1::LocatedChunk {
    fn from(located: model::LocatedChunk) -> Self {
        Self {
            number: located.number,
            offset: located.offset,
            chunk: Some(located.chunk.into()),
            copy: Some(located.copy.into()),
        }
    }
}

impl TryFrom<v1::LocatedChunk> for model::LocatedChunk {
    type Error = ConvertError;

    fn try_from(located: v1::LocatedChunk) -> Result<Self, ConvertError> {
        Ok(Self {
            number: located.number,
            offset: located.offset,
            chunk: required("located_chunk.chunk", located.chunk)?.try_into()?,
            copy: required("located_chunk.copy", located.copy)?.try_into()?,
        })
    }
}

impl From<model::EntryKind> for v1::EntryKind {
    fn from(kind: model::EntryKind) -> Self {
        match kind {
            model::EntryKind::File => Self::File,
            model::EntryKind::Directory => Self::Directory,
        }
    }
}

fn unknown(field: &'static str, value: i32) -> ConvertError {
    // A negative enum value shows as the large number that stands on the wire.
    ConvertError::Unknown { field, value: value as u32 as u64 }
}

/// The entry kind in an enum field.
pub fn entry_kind(field: &'static str, value: i32) -> Result<model::EntryKind, ConvertError> {
    match v1::EntryKind::try_from(value) {
        Ok(v1::EntryKind::File) => Ok(model::EntryKind::File),
        Ok(v1::EntryKind::Directory) => Ok(model::EntryKind::Directory),
        Ok(v1::EntryKind::Unspecified) | Err(_) => Err(unknown(field, value)),
    }
}

impl From<model::SizeClass> for v1::SizeClass {
    fn from(class: model::SizeClass) -> Self {
        match class {
            model::SizeClass::Small => Self::Small,
            model::SizeClass::Large => Self::Large,
        }
    }
}

/// The size class in an enum field.
pub fn size_class(field: &'static str, value: i32) -> Result<model::SizeClass, ConvertError> {
    match v1::SizeClass::try_from(value) {
        Ok(v1::SizeClass::Small) => Ok(model::SizeClass::Small),
        Ok(v1::SizeClass::Large) => Ok(model::SizeClass::Large),
        Ok(v1::SizeClass::Unspecified) | Err(_) => Err(unknown(field, value)),
    }
}

impl From<model::VolumeState> for v1::VolumeState {
    fn from(state: model::VolumeState) -> Self {
        match state {
            model::VolumeState::Creating => Self::Creating,
            model::VolumeState::Writable => Self::Writable,
            model::VolumeState::Sealed => Self::Sealed,
        }
    }
}

/// The volume state in an enum field.
pub fn volume_state(field: &'static str, value: i32) -> Result<model::VolumeState, ConvertError> {
    match v1::VolumeState::try_from(value) {
        Ok(v1::VolumeState::Creating) => Ok(model::VolumeState::Creating),
        Ok(v1::VolumeState::Writable) => Ok(model::VolumeState::Writable),
        Ok(v1::VolumeState::Sealed) => Ok(model::VolumeState::Sealed),
        Ok(v1::VolumeState::Unspecified) | Err(_) => Err(unknown(field, value)),
    }
}

impl From<model::EntryInfo> for v1::Entry {
    fn from(entry: model::EntryInfo) -> Self {
        Self {
            id: entry.id.to_wire(),
            path: Bytes::from(entry.path.into_bytes()),
            kind: v1::EntryKind::from(entry.kind).into(),
            size: entry.size,
            content_hash: entry.content_hash.map(|hash| hash.to_wire()).unwrap_or_default(),
            modified_ms: entry.modified_ms,
            content_type: entry.content_type,
            user_metadata: name_values(entry.user_metadata),
            manifest: entry.manifest.map(|id| id.to_wire()).unwrap_or_default(),
            chunk_count: entry.chunk_count,
        }
    }
}

impl TryFrom<v1::Entry> for model::EntryInfo {
    type Error = ConvertError;

    fn try_from(entry: v1::Entry) -> Result<Self, ConvertError> {
        Ok(Self {
            id: EntryId::from_wire("entry.id", &entry.id)?,
            path: text("entry.path", entry.path)?,
            kind: entry_kind("entry.kind", entry.kind)?,
            size: entry.size,
            content_hash: optional("entry.content_hash", &entry.content_hash)?,
            modified_ms: entry.modified_ms,
            content_type: entry.content_type,
            user_metadata: pairs(entry.user_metadata),
            manifest: optional("entry.manifest", &entry.manifest)?,
            chunk_count: entry.chunk_count,
        })
    }
}

/// An id that is absent where the field is empty.
pub fn optional<T: WireId>(field: &'static str, bytes: &[u8]) -> Result<Option<T>, ConvertError> {
    if bytes.is_empty() { Ok(None) } else { T::from_wire(field, bytes).map(Some) }
}

/// A text that travels as bytes.
pub fn text(field: &'static str, bytes: Bytes) -> Result<String, ConvertError> {
    String::from_utf8(bytes.into()).map_err(|_| ConvertError::NotUtf8 { field })
}

/// Pairs as messages hold them.
pub fn name_values(pairs: Vec<(String, String)>) -> Vec<v1::NameValue> {
    pairs.into_iter().map(|(name, value)| v1::NameValue { name, value }).collect()
}

/// Pairs from a message.
pub fn pairs(values: Vec<v1::NameValue>) -> Vec<(String, String)> {
    values.into_iter().map(|v| (v.name, v.value)).collect()
}

impl From<model::LeasedVolume> for v1::LeasedVolume {
    fn from(leased: model::LeasedVolume) -> Self {
        Self {
            volume: leased.volume.0,
            epoch: leased.epoch.0,
            class: v1::SizeClass::from(leased.class).into(),
            replicas: leased.replicas,
        }
    }
}

impl TryFrom<v1::LeasedVolume> for model::LeasedVolume {
    type Error = ConvertError;

    fn try_from(leased: v1::LeasedVolume) -> Result<Self, ConvertError> {
        Ok(Self {
            volume: VolumeId(leased.volume),
            epoch: Epoch(leased.epoch),
            class: size_class("leased_volume.class", leased.class)?,
            replicas: leased.replicas,
        })
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code.as_str().to_owned(), message: failure.message }
    }
}

/// A code from a newer version becomes `internal`: the caller can't know what to do about it.
impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        Failure::new(ErrorCode::parse(&failure.code).unwrap_or(ErrorCode::Internal), failure.message)
    }
}

#[cfg(test)]
mod tests;
