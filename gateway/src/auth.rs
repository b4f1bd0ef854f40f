//! Who calls. The one place where an [`Authenticated`] is made, and only from an `Authorization` header: every
//! handler behind the door takes one, and every inner call needs the hash that it holds.
//!
//! The gateway knows no tokens. The filer looks the hash up in the same snapshot as what is asked for, so a withdrawn
//! token opens nothing from the commit on.

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::TOKEN_BYTES_MAX;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// A caller that has shown a bearer token. Whether the token is good the filer says, with every call.
#[derive(Clone, Copy)]
pub(crate) struct Authenticated {
    token_hash: [u8; 32],
}

impl Authenticated {
    /// Reads the one `Authorization` header.
    ///
    /// # Errors
    /// `unauthenticated` for none, several, another scheme, or what can't be a token.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Failure> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(refused("send one header \"Authorization: Bearer TOKEN\""));
        };
        let text = value.to_str().map_err(|_| refused("the Authorization header is not ASCII"))?;
        let (scheme, token) = text.trim().split_once(' ').unwrap_or((text, ""));
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("the scheme of the Authorization header is not Bearer"));
        }
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || token.contains([' ', '\t']) {
            return Err(refused("the bearer token is empty, too long or has spaces in it"));
        }
        Ok(Self { token_hash: Sha256::digest(token.as_bytes()).into() })
    }

    /// SHA-256 of the token: what the filer knows it by.
    pub(crate) fn token_hash(&self) -> [u8; 32] {
        self.token_hash
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(ErrorCode::Unauthenticated, format!("no access without a token: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn read(values: &[&[u8]]) -> Result<Authenticated, Failure> {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        Authenticated::from_headers(&map)
    }

    #[test]
    fn one_bearer_token_and_nothing_else() {
        let expected: [u8; 32] = Sha256::digest(b"secret").into();
        for good in ["Bearer secret", "bearer secret", "BEARER   secret", " Bearer secret "] {
            assert_eq!(read(&[good.as_bytes()]).unwrap().token_hash(), expected, "{good:?}");
        }
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        for bad in [
            vec![],
            vec![b"".as_slice()],
            vec![b"Bearer"],
            vec![b"Bearer "],
            vec![b"secret"],
            vec![b"Basic c2VjcmV0"],
            vec![b"Bearer a b"],
            vec![b"Bearer \xff"],
            vec![b"Bearer secret", b"Bearer secret"],
            vec![long.as_bytes()],
        ] {
            assert_eq!(read(&bad).err().map(|f| f.code), Some(ErrorCode::Unauthenticated), "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_never_shows_the_token() {
        let failure = read(&[b"Basic topsecret"]).err().unwrap();
        assert!(!failure.message.contains("topsecret"));
    }
}
