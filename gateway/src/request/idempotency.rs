//! `Idempotency-Key`: a client that repeats a request under one key has it done once.

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use http::HeaderMap;
use sha2::{Digest, Sha256};

/// The key of a request, where it has one.
///
/// # Errors
/// `invalid_argument` for one that is empty, too long, not visible ASCII or given twice.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key("idempotency-key") {
            true => Err(bad("it stands more than once")),
            false => Ok(None),
        };
    };
    let text = value.to_str().map_err(|_| bad("it is not visible ASCII"))?.trim();
    if text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(bad(&format!("it must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} characters")));
    }
    Ok(Some(text.to_owned()))
}

fn bad(why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("Idempotency-Key can't be used: {why}"))
}

/// SHA-256 over what makes a request what it is, so that one key is never taken for two requests.
#[derive(Clone)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins with what is done.
    pub(crate) fn of(method: &str) -> Self {
        Self(Sha256::new()).with(method.as_bytes())
    }

    /// Adds a part; lengths keep `ab`, `c` apart from `a`, `bc`.
    pub(crate) fn with(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// The fingerprint.
    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn keys_are_short_visible_and_single() {
        let mut map = HeaderMap::new();
        assert_eq!(key(&map).unwrap(), None);
        map.insert("idempotency-key", HeaderValue::from_static(" a1-b2 "));
        assert_eq!(key(&map).unwrap().as_deref(), Some("a1-b2"));
        map.append("idempotency-key", HeaderValue::from_static("other"));
        assert!(key(&map).is_err());
        let long = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1);
        for bad in ["", " ", "ü", long.as_str()] {
            map.insert("idempotency-key", HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert!(key(&map).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let one = Fingerprint::of("PUT").with(b"ab").with(b"c").finish();
        let two = Fingerprint::of("PUT").with(b"a").with(b"bc").finish();
        assert_ne!(one, two);
    }
}
