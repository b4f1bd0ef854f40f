//! The signed token of a write lease: which volumes its holder may append to, under which epochs.
//!
//! A token, big endian: version (1 byte: 1) · cluster (16) · expiry in wall ms (8) · number of volumes (2) · for each
//! its id (4) and epoch (8) · Ed25519 signature over a fixed text and all before it (64).

use std::sync::Arc;

use bytes::Bytes;
use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, Epoch, VolumeId};
use hay_common::limits::WRITE_LEASE_VOLUMES_MAX;

use super::cluster_key::{ClusterKey, PublicKey, SIGNATURE_BYTES};
use super::verified::Verified;

const SIGNED_AS: &[u8] = b"haystore write lease 1\0";
const VERSION: u8 = 1;

/// Why a token does not allow an append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Not the bytes of a token, or of a newer version.
    #[error("the write lease is malformed")]
    Malformed,
    /// Not signed by the cluster's key.
    #[error("the write lease is not signed by this cluster's masters")]
    Forged,
    /// Signed for another cluster.
    #[error("the write lease is another cluster's")]
    OtherCluster,
    /// It is for other volumes, or for another epoch of this one.
    #[error("the write lease does not allow appends to volume {volume} in epoch {epoch}")]
    NotCovered {
        /// The volume appended to.
        volume: VolumeId,
        /// The append's epoch.
        epoch: Epoch,
    },
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        let code = match error {
            LeaseError::Malformed => ErrorCode::InvalidArgument,
            LeaseError::Forged | LeaseError::OtherCluster => ErrorCode::CredentialRefused,
            LeaseError::NotCovered { .. } => ErrorCode::StaleEpoch,
        };
        Failure::new(code, error.to_string())
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseToken {
    /// Whose it is.
    pub cluster: ClusterId,
    /// At most [`WRITE_LEASE_VOLUMES_MAX`].
    pub volumes: Vec<(VolumeId, Epoch)>,
    /// When its holder should have another, in wall ms. Not a fence: epochs are. While no master can be reached,
    /// an old token goes on being good for volumes whose epoch has not changed.
    pub expires_ms: u64,
}

impl LeaseToken {
    /// The signed bytes.
    pub fn sign(&self, key: &ClusterKey) -> Bytes {
        let mut token = Vec::with_capacity(27 + self.volumes.len() * 12 + SIGNATURE_BYTES);
        token.push(VERSION);
        token.extend(self.cluster.as_bytes());
        token.extend(self.expires_ms.to_be_bytes());
        let volumes = self.volumes.get(..WRITE_LEASE_VOLUMES_MAX).unwrap_or(&self.volumes);
        token.extend((volumes.len() as u16).to_be_bytes());
        for (volume, epoch) in volumes {
            token.extend(volume.0.to_be_bytes());
            token.extend(epoch.0.to_be_bytes());
        }
        let signature = key.sign([SIGNED_AS, &token]);
        token.extend(signature);
        token.into()
    }

    /// Whether it allows appends to `volume` in `epoch`.
    pub fn covers(&self, volume: VolumeId, epoch: Epoch) -> bool {
        self.volumes.contains(&(volume, epoch))
    }
}

/// Takes the tokens of one cluster's masters. Remembers what it has verified: each lease is verified once.
pub struct LeaseVerifier {
    cluster: ClusterId,
    public: PublicKey,
    known: Verified<LeaseToken>,
}

impl LeaseVerifier {
    /// Of `cluster`, whose masters sign with the private half of `public`.
    pub fn new(cluster: ClusterId, public: PublicKey) -> Self {
        Self { cluster, public, known: Verified::default() }
    }

    /// What `token` says, if the masters signed it. Its expiry is the caller's to look at.
    pub fn verify(&self, token: &[u8]) -> Result<Arc<LeaseToken>, LeaseError> {
        let lease = self.known.get(token, |token| self.decode(token))?;
        if lease.cluster != self.cluster { Err(LeaseError::OtherCluster) } else { Ok(lease) }
    }

    /// Whether `token` allows an append to `volume` in `epoch`.
    pub fn check(&self, token: &[u8], volume: VolumeId, epoch: Epoch) -> Result<(), LeaseError> {
        let lease = self.verify(token)?;
        if lease.covers(volume, epoch) { Ok(()) } else { Err(LeaseError::NotCovered { volume, epoch }) }
    }

    fn decode(&self, token: &[u8]) -> Result<LeaseToken, LeaseError> {
        let (body, signature) = token
            .len()
            .checked_sub(SIGNATURE_BYTES)
            .and_then(|at| token.split_at_checked(at))
            .ok_or(LeaseError::Malformed)?;
        let lease = parse(body).ok_or(LeaseError::Malformed)?;
        if self.public.verifies([SIGNED_AS, body], signature) { Ok(lease) } else { Err(LeaseError::Forged) }
    }
}

fn parse(body: &[u8]) -> Option<LeaseToken> {
    let (&version, rest) = body.split_first()?;
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    if version != VERSION || count > WRITE_LEASE_VOLUMES_MAX {
        return None;
    }
    let mut volumes = Vec::with_capacity(count);
    for _ in 0..count {
        let (volume, after) = rest.split_first_chunk::<4>()?;
        let (epoch, after) = after.split_first_chunk::<8>()?;
        volumes.push((VolumeId(u32::from_be_bytes(*volume)), Epoch(u64::from_be_bytes(*epoch))));
        rest = after;
    }
    let cluster = ClusterId::from_slice(cluster)?;
    rest.is_empty().then_some(LeaseToken { cluster, volumes, expires_ms: u64::from_be_bytes(*expires) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::credential::CredentialVerifier;

    fn key(seed: u8) -> ClusterKey {
        ClusterKey::from_seed(ClusterId::from_random(3), &[seed; 32]).unwrap()
    }

    fn lease() -> LeaseToken {
        LeaseToken {
            cluster: ClusterId::from_random(3),
            volumes: vec![(VolumeId(1), Epoch(4)), (VolumeId(9), Epoch(1 << 40))],
            expires_ms: 123_456,
        }
    }

    #[test]
    fn it_allows_its_volumes_in_their_epochs_alone() {
        let key = key(1);
        let verifier = LeaseVerifier::new(key.cluster(), key.public());
        let token = lease().sign(&key);
        for _ in 0..2 {
            assert_eq!(*verifier.verify(&token).unwrap(), lease());
            assert_eq!(verifier.check(&token, VolumeId(1), Epoch(4)), Ok(()));
            for (volume, epoch) in [(1, 3), (1, 5), (9, 4), (2, 4)] {
                let refused = verifier.check(&token, VolumeId(volume), Epoch(epoch));
                assert!(matches!(refused, Err(LeaseError::NotCovered { .. })), "{volume} {epoch}");
            }
        }
        assert_eq!(Failure::from(LeaseError::Forged).code, ErrorCode::CredentialRefused);
    }

    #[test]
    fn no_changed_bit_passes() {
        let key = key(1);
        let verifier = LeaseVerifier::new(key.cluster(), key.public());
        let token = lease().sign(&key);
        for bit in 0..token.len() * 8 {
            let mut changed = token.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verifier.verify(&changed).is_err(), "bit {bit}");
        }
        for cut in 0..token.len() {
            assert!(verifier.verify(&token[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_key_another_cluster_and_another_kind_are_refused() {
        let key = key(1);
        let verifier = LeaseVerifier::new(key.cluster(), key.public());
        assert_eq!(verifier.verify(&lease().sign(&self::key(2))), Err(LeaseError::Forged));
        let other = LeaseToken { cluster: ClusterId::from_random(4), ..lease() };
        assert_eq!(verifier.verify(&other.sign(&key)), Err(LeaseError::OtherCluster));
        // The same key signs credentials; a lease is none.
        let credentials = CredentialVerifier::new(key.cluster(), key.public());
        assert!(credentials.verify(&lease().sign(&key), 0).is_err());
    }
}
