//! A role's credential between processes: short-lived, signed with the cluster's key.
//!
//! A token, big endian: version (1 byte: 1) · role (1) · cluster (16) · node (16) · expiry in wall ms (8) · Ed25519
//! signature over a fixed text and all before it (64).

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{ClusterId, NodeId};
use hay_common::limits::{CLOCK_SKEW_MAX, CREDENTIAL_TTL};

use super::cluster_key::SIGNATURE_BYTES;
pub use super::cluster_key::{ClusterKey, KeyFileError, PublicKey};
use super::verified::Verified;
use super::{Peer, Role};

const SIGNED_AS: &[u8] = b"haystore credential 1\0";
const VERSION: u8 = 1;
const BODY_BYTES: usize = 1 + 1 + 16 + 16 + 8;
const TOKEN_BYTES: usize = BODY_BYTES + SIGNATURE_BYTES;

/// Why a credential is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is none.
    #[error("the call carries no cluster credential")]
    Missing,
    /// Not the bytes of a credential, or of a newer version.
    #[error("the cluster credential is malformed: are both of the same version of hay?")]
    Malformed,
    /// Not signed by the cluster's key.
    #[error(
        "the cluster credential is not signed by this cluster's key: give both the same file with --cluster-key"
    )]
    Forged,
    /// Signed for another cluster.
    #[error("the cluster credential is another cluster's: give both the same file with --cluster-key")]
    OtherCluster,
    /// Its time is over.
    #[error(
        "the cluster credential has expired: set the clocks of both machines right; they may differ by two hours"
    )]
    Expired,
    /// No clock that is right has minted it.
    #[error(
        "the cluster credential is from the future: set the clocks of both machines right; they may differ by two hours"
    )]
    TooEarly,
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Self::new(ErrorCode::CredentialRefused, error.to_string())
    }
}

impl ClusterKey {
    /// A credential of `peer` that is good for [`CREDENTIAL_TTL`] from `now_ms`.
    pub fn mint(&self, peer: Peer, now_ms: u64) -> Vec<u8> {
        let expires_ms = now_ms.saturating_add(CREDENTIAL_TTL.as_millis() as u64);
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.extend([VERSION, role_byte(peer.role)]);
        token.extend(self.cluster().as_bytes());
        token.extend(peer.node.as_bytes());
        token.extend(expires_ms.to_be_bytes());
        let signature = self.sign([SIGNED_AS, &token]);
        token.extend(signature);
        token
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Credential {
    peer: Peer,
    cluster: ClusterId,
    expires_ms: u64,
}

/// Takes the credentials of one cluster.
pub struct CredentialVerifier {
    cluster: ClusterId,
    public: PublicKey,
    known: Verified<Credential>,
}

impl CredentialVerifier {
    /// Of `cluster`, whose key's public half is `public`.
    pub fn new(cluster: ClusterId, public: PublicKey) -> Self {
        Self { cluster, public, known: Verified::default() }
    }

    /// Who holds `token`. `now_ms`: the wall clock. It was minted by another machine's clock, which may be wrong by up to
    /// [`CLOCK_SKEW_MAX`] (docs/decisions/0012): a cluster must not stop for that.
    pub fn verify(&self, token: &[u8], now_ms: u64) -> Result<Peer, CredentialError> {
        let credential = self.known.get(token, |token| self.decode(token))?;
        if credential.cluster != self.cluster {
            return Err(CredentialError::OtherCluster);
        }
        let (skew_ms, ttl_ms) = (CLOCK_SKEW_MAX.as_millis() as u64, CREDENTIAL_TTL.as_millis() as u64);
        if now_ms >= credential.expires_ms.saturating_add(skew_ms) {
            return Err(CredentialError::Expired);
        }
        // One that was minted by a clock far ahead would be good for as much longer.
        if credential.expires_ms > now_ms.saturating_add(ttl_ms).saturating_add(skew_ms) {
            return Err(CredentialError::TooEarly);
        }
        Ok(credential.peer)
    }

    fn decode(&self, token: &[u8]) -> Result<Credential, CredentialError> {
        let credential = parse(token).ok_or(CredentialError::Malformed)?;
        let (body, signature) = token.split_at_checked(BODY_BYTES).ok_or(CredentialError::Malformed)?;
        if !self.public.verifies([SIGNED_AS, body], signature) {
            return Err(CredentialError::Forged);
        }
        Ok(credential)
    }
}

fn parse(token: &[u8]) -> Option<Credential> {
    if token.len() != TOKEN_BYTES {
        return None;
    }
    let (&version, rest) = token.split_first()?;
    let (&role, rest) = rest.split_first()?;
    let (cluster, rest) = rest.split_first_chunk::<16>()?;
    let (node, rest) = rest.split_first_chunk::<16>()?;
    let (expires, _) = rest.split_first_chunk::<8>()?;
    if version != VERSION {
        return None;
    }
    Some(Credential {
        peer: Peer { role: role_of(role)?, node: NodeId::from_slice(node)? },
        cluster: ClusterId::from_slice(cluster)?,
        expires_ms: u64::from_be_bytes(*expires),
    })
}

/// Part of the token's format: never renumbered.
fn role_byte(role: Role) -> u8 {
    match role {
        Role::Master => 1,
        Role::VolumeServer => 2,
        Role::Filer => 3,
        Role::Gateway => 4,
        Role::Admin => 5,
    }
}

fn role_of(byte: u8) -> Option<Role> {
    match byte {
        1 => Some(Role::Master),
        2 => Some(Role::VolumeServer),
        3 => Some(Role::Filer),
        4 => Some(Role::Gateway),
        5 => Some(Role::Admin),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn key(seed: u8) -> ClusterKey {
        ClusterKey::from_seed(ClusterId::from_random(77), &[seed; 32]).unwrap()
    }

    fn peer(role: Role) -> Peer {
        Peer { role, node: NodeId::from_random(5) }
    }

    #[test]
    fn each_role_is_itself_until_it_expires() {
        let key = key(1);
        let verifier = CredentialVerifier::new(key.cluster(), key.public());
        let ttl_ms = (CREDENTIAL_TTL + CLOCK_SKEW_MAX).as_millis() as u64;
        for role in [Role::Master, Role::VolumeServer, Role::Filer, Role::Gateway, Role::Admin] {
            let token = key.mint(peer(role), NOW_MS);
            assert_eq!(verifier.verify(&token, NOW_MS), Ok(peer(role)));
            assert_eq!(verifier.verify(&token, NOW_MS + ttl_ms - 1), Ok(peer(role)));
            // From the cache as well as from the signature.
            assert_eq!(verifier.verify(&token, NOW_MS + ttl_ms), Err(CredentialError::Expired));
        }
    }

    #[test]
    fn a_clock_that_is_far_ahead_makes_no_credential_that_lasts() {
        let key = key(1);
        let verifier = CredentialVerifier::new(key.cluster(), key.public());
        let skew_ms = CLOCK_SKEW_MAX.as_millis() as u64;
        let ahead = key.mint(peer(Role::Gateway), NOW_MS + skew_ms);
        assert_eq!(verifier.verify(&ahead, NOW_MS), Ok(peer(Role::Gateway)));
        let too_far = key.mint(peer(Role::Gateway), NOW_MS + skew_ms + 1);
        assert_eq!(verifier.verify(&too_far, NOW_MS), Err(CredentialError::TooEarly));
        let years = key.mint(peer(Role::Gateway), u64::MAX);
        assert_eq!(verifier.verify(&years, NOW_MS), Err(CredentialError::TooEarly));
    }

    #[test]
    fn no_changed_bit_passes() {
        let key = key(1);
        let verifier = CredentialVerifier::new(key.cluster(), key.public());
        let token = key.mint(peer(Role::Filer), NOW_MS);
        for bit in 0..token.len() * 8 {
            let mut changed = token.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(verifier.verify(&changed, NOW_MS).is_err(), "bit {bit}");
        }
        for cut in 0..token.len() {
            assert_eq!(
                verifier.verify(&token[..cut], NOW_MS),
                Err(CredentialError::Malformed),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn another_key_or_another_cluster_is_refused() {
        let (ours, theirs) = (key(1), key(2));
        let verifier = CredentialVerifier::new(ours.cluster(), ours.public());
        assert_eq!(
            verifier.verify(&theirs.mint(peer(Role::Admin), NOW_MS), NOW_MS),
            Err(CredentialError::Forged)
        );
        let renamed = ClusterKey::from_seed(ClusterId::from_random(78), &[1; 32]).unwrap();
        let token = renamed.mint(peer(Role::Admin), NOW_MS);
        assert_eq!(verifier.verify(&token, NOW_MS), Err(CredentialError::OtherCluster));
    }

    #[test]
    fn golden_bytes_of_a_credential() {
        let key = key(9);
        let token = key.mint(peer(Role::Gateway), 0x0102_0304_0506);
        let body = format!(
            "0104{}{}{:016x}",
            key.cluster().0.simple(),
            peer(Role::Gateway).node.0.simple(),
            0x0102_0304_0506u64 + 300_000
        );
        assert_eq!(hex::encode(&token[..BODY_BYTES]), body);
        assert_eq!(token.len(), 106);
    }
}
