//! Tokens whose signatures were verified before: an Ed25519 verification costs more than many of the calls.

use std::collections::HashMap;
use std::sync::Arc;

use hay_common::limits::VERIFIED_TOKENS_MAX;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

/// By the SHA-256 of the token: how long a look-up takes says nothing about a token that is not known.
pub(crate) struct Verified<T>(Mutex<HashMap<[u8; 32], Arc<T>>>);

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<T> Verified<T> {
    /// What `token` says, by `verify` unless it was verified before. Only what verified is kept.
    pub(crate) fn get<E>(
        &self,
        token: &[u8],
        verify: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let name = name(token);
        if let Some(known) = self.0.lock().get(&name) {
            return Ok(known.clone());
        }
        let verified = Arc::new(verify(token)?);
        let mut known = self.0.lock();
        // Only holders of the key make entries, a few a minute; starting anew bounds it well enough.
        if known.len() >= VERIFIED_TOKENS_MAX {
            known.clear();
        }
        known.insert(name, verified.clone());
        Ok(verified)
    }
}

fn name(token: &[u8]) -> [u8; 32] {
    let mut name = [0; 32];
    name.copy_from_slice(digest(&SHA256, token).as_ref().first_chunk().unwrap_or(&[0; 32]));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_verifies_once_keeps_no_failure_and_stays_bounded() {
        let verified = Verified::<u32>::default();
        assert_eq!(verified.get(b"a", |_| Err::<u32, _>("no")), Err("no"));
        assert_eq!(verified.get(b"a", |_| Ok::<_, &str>(1)).as_deref(), Ok(&1));
        assert_eq!(verified.get(b"a", |_| Err("asked again")).as_deref(), Ok(&1));
        for n in 0..3 * VERIFIED_TOKENS_MAX as u32 {
            verified.get(&n.to_be_bytes(), |_| Ok::<_, &str>(n)).unwrap();
            assert!(verified.0.lock().len() <= VERIFIED_TOKENS_MAX);
        }
    }
}
