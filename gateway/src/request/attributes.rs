//! What a writer says of a file besides its bytes: content type and user metadata.

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{CONTENT_TYPE_BYTES_MAX, USER_METADATA_BYTES_MAX, USER_METADATA_PAIRS_MAX};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The prefix of headers that carry user metadata.
pub(crate) const USER_METADATA_PREFIX: &str = "x-haystore-meta-";

/// Kept with the entry as given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WrittenAttributes {
    /// `Content-Type`.
    pub(crate) content_type: Option<String>,
    /// Lower-case names without the prefix, sorted, unique.
    pub(crate) user_metadata: Vec<(String, String)>,
}

impl WrittenAttributes {
    /// Reads the headers of a PUT.
    ///
    /// # Errors
    /// `invalid_argument` for what is no text or stands twice, `too_large` beyond the limits.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
            return Err(Failure::new(ErrorCode::InvalidArgument, "Content-Type stands more than once"));
        }
        let content_type = headers.get(CONTENT_TYPE).map(|v| text(&CONTENT_TYPE, v)).transpose()?;
        if content_type.as_ref().is_some_and(|t| t.len() > CONTENT_TYPE_BYTES_MAX) {
            return Err(Failure::new(
                ErrorCode::TooLarge,
                format!("Content-Type may have {CONTENT_TYPE_BYTES_MAX} bytes"),
            ));
        }
        let mut user_metadata = Vec::new();
        let mut bytes = 0;
        for (name, value) in headers {
            let Some(short) = name.as_str().strip_prefix(USER_METADATA_PREFIX) else { continue };
            if short.is_empty() {
                return Err(Failure::new(
                    ErrorCode::InvalidArgument,
                    "X-Haystore-Meta- needs a name behind it",
                ));
            }
            let value = text(name, value)?;
            bytes += short.len() + value.len();
            user_metadata.push((short.to_owned(), value));
        }
        if user_metadata.len() > USER_METADATA_PAIRS_MAX || bytes > USER_METADATA_BYTES_MAX {
            return Err(Failure::new(
                ErrorCode::TooLarge,
                format!(
                    "user metadata may have {USER_METADATA_PAIRS_MAX} pairs and {USER_METADATA_BYTES_MAX} bytes in all"
                ),
            ));
        }
        user_metadata.sort();
        let twice = user_metadata.iter().zip(user_metadata.iter().skip(1)).find(|(a, b)| a.0 == b.0);
        if let Some(((name, _), _)) = twice {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!("{USER_METADATA_PREFIX}{name} stands more than once"),
            ));
        }
        Ok(Self { content_type, user_metadata })
    }
}

/// The headers that give user metadata back. What can't stand in a header any more is left out.
pub(crate) fn metadata_headers(
    pairs: &[(String, String)],
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    pairs.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(format!("{USER_METADATA_PREFIX}{name}")).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    })
}

fn text(name: &HeaderName, value: &HeaderValue) -> Result<String, Failure> {
    std::str::from_utf8(value.as_bytes())
        .map(|t| t.trim().to_owned())
        .map_err(|_| Failure::new(ErrorCode::InvalidArgument, format!("{name} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn metadata_is_sorted_and_comes_back_as_given() {
        let parsed = WrittenAttributes::parse(&headers(&[
            ("x-haystore-meta-zeta", b"1"),
            ("content-type", b"text/plain; charset=utf-8"),
            ("x-haystore-meta-alpha", "ä €".as_bytes()),
            ("x-other", b"no"),
        ]))
        .unwrap();
        assert_eq!(parsed.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(parsed.user_metadata, [("alpha".into(), "ä €".into()), ("zeta".into(), "1".into())]);
        let back: HeaderMap = metadata_headers(&parsed.user_metadata).collect();
        assert_eq!(back.get("x-haystore-meta-alpha").unwrap().as_bytes(), "ä €".as_bytes());
    }

    #[test]
    fn odd_metadata_is_refused() {
        let long = vec![b'x'; USER_METADATA_BYTES_MAX];
        let long_type = vec![b'x'; CONTENT_TYPE_BYTES_MAX + 1];
        for (pairs, code) in [
            (
                vec![("x-haystore-meta-a", b"1".as_slice()), ("x-haystore-meta-a", b"2")],
                ErrorCode::InvalidArgument,
            ),
            (vec![("x-haystore-meta-", b"1".as_slice())], ErrorCode::InvalidArgument),
            (vec![("x-haystore-meta-a", b"\xff".as_slice())], ErrorCode::InvalidArgument),
            (vec![("x-haystore-meta-a", long.as_slice())], ErrorCode::TooLarge),
            (vec![("content-type", long_type.as_slice())], ErrorCode::TooLarge),
        ] {
            assert_eq!(
                WrittenAttributes::parse(&headers(&pairs)).unwrap_err().code,
                code,
                "{:?}",
                pairs[0].0
            );
        }
        let mut many = HeaderMap::new();
        for i in 0..=USER_METADATA_PAIRS_MAX {
            many.insert(
                HeaderName::try_from(format!("x-haystore-meta-n{i}")).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        assert_eq!(WrittenAttributes::parse(&many).unwrap_err().code, ErrorCode::TooLarge);
    }
}
