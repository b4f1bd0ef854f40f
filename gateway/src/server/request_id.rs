//! The id that follows a request through logs and inner calls.

use hay_common::random::Random;
use hay_proto::rpc::RequestId;
use http::HeaderMap;

/// Carries the id, both ways.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// The client's own id where it is one of ours in form, else a new one: nothing a client writes gets into logs
/// unchecked.
pub(crate) fn request_id(headers: &HeaderMap, random: &dyn Random) -> RequestId {
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).and_then(|t| t.parse().ok());
    given.unwrap_or_else(|| RequestId::from_random(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::random::SeededRandom;
    use http::HeaderValue;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let random = SeededRandom::shared(1);
        let of = |value: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(REQUEST_ID, HeaderValue::from_static(value));
            request_id(&map, random.as_ref()).to_string()
        };
        assert_eq!(of("0123456789abcdef"), "0123456789abcdef");
        for bad in ["", "short", "0123456789abcdeg", "0123456789abcdef0", "a b c d e f g h "] {
            assert_ne!(of(bad), bad);
            assert_eq!(of(bad).len(), 16);
        }
    }
}
