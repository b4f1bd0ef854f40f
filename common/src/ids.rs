//! The names of things. Each is a type of its own, so that none is passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that does not name what it was meant to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(80).collect() }
    }
}

/// SHA-256 of a content, or of a manifest's root node (DESIGN §1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The needle key of an unencrypted content: the first 128 bits of its hash.
    pub fn needle_key(&self) -> NeedleKey {
        let mut key = [0; 16];
        key.copy_from_slice(self.0.first_chunk::<16>().unwrap_or(&[0; 16]));
        NeedleKey(u128::from_be_bytes(key))
    }

    /// From exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        // 64 characters always hold 32 bytes.
        let _ = hex::encode_to_slice(self.0, &mut text);
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentHash {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError::new("content hash", text))?;
        Ok(Self(bytes))
    }
}

/// The key half of a needle's identity (key, cookie).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NeedleKey(pub u128);

impl fmt::Debug for NeedleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for NeedleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The random half of a needle's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cookie(pub u32);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $repr:ty) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
        )]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(/// A volume, given by the masters and never used again.
    VolumeId, u32);
number_id!(/// The epoch of a volume: appends of a lower one are refused.
    Epoch, u64);
number_id!(/// A member of a Raft group.
    MemberId, u64);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub Uuid);

        impl $name {
            /// From exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// A new one, from random bits of the caller's.
            pub fn from_random(bits: u128) -> Self {
                Self(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
            }

            /// The 16 bytes, as they stand in keys.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| ParseIdError::new($what, text))
            }
        }
    };
}

uuid_id!(/// A billing and isolation domain.
    TenantId, "tenant id");
uuid_id!(/// Who acts: a user, a service key or the administrator.
    PrincipalId, "principal id");
uuid_id!(/// The metadata of one path. Never used again.
    EntryId, "entry id");
uuid_id!(/// A file's chunk list, before and after it has been published.
    ManifestId, "manifest id");
uuid_id!(/// One needle as the metadata knows it.
    CopyId, "copy id");
uuid_id!(/// An ingest session of a gateway.
    SessionId, "session id");
uuid_id!(/// The cluster that a directory, a credential or a volume belongs to.
    ClusterId, "cluster id");
uuid_id!(/// A server's own identity, kept in a file of its directory.
    NodeId, "node id");
uuid_id!(/// One writing of a volume file: a compacted volume has another.
    Incarnation, "volume incarnation");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needle_key_is_the_prefix_of_the_hash() {
        let mut bytes = [0u8; 32];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = i as u8;
        }
        assert_eq!(ContentHash(bytes).needle_key().to_string(), "000102030405060708090a0b0c0d0e0f");
    }

    #[test]
    fn a_hash_reads_back_from_its_text() {
        let hash = ContentHash([0xab; 32]);
        assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
        assert!("ab".parse::<ContentHash>().is_err());
        assert!("zz".repeat(32).parse::<ContentHash>().is_err());
    }
}
