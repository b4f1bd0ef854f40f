//! Digests that a client announces for its whole body: checked before anything becomes visible.

use hay_common::error::{ErrorCode, Failure};
use http::{HeaderMap, HeaderValue};

const OWN: &str = "x-haystore-sha256";
/// RFC 9530. A PUT without `Content-Encoding` carries the representation itself, so both mean the same here.
const FIELDS: [&str; 2] = ["content-digest", "repr-digest"];

/// The SHA-256 of the whole body, where a client announces one.
///
/// # Errors
/// `invalid_argument` where a digest can't be read, or two differ.
pub(crate) fn announced(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Failure> {
    let mut found: Option<[u8; 32]> = None;
    let mut note = |digest: [u8; 32]| match found {
        Some(other) if other != digest => Err(bad("two announced digests differ")),
        _ => {
            found = Some(digest);
            Ok(())
        }
    };
    for value in headers.get_all(OWN) {
        let mut digest = [0; 32];
        hex::decode_to_slice(text(value)?, &mut digest)
            .map_err(|_| bad("X-Haystore-Sha256 takes 64 hexadecimal digits"))?;
        note(digest)?;
    }
    for value in FIELDS.iter().flat_map(|name| headers.get_all(*name)) {
        for member in text(value)?.split(',') {
            if let Some(digest) = sha256_member(member)? {
                note(digest)?;
            }
        }
    }
    Ok(found)
}

/// One member of the dictionary `sha-256=:base64:, sha-512=:…:`; other algorithms are not ours to check.
fn sha256_member(member: &str) -> Result<Option<[u8; 32]>, Failure> {
    let Some((algorithm, value)) = member.trim().split_once('=') else { return Ok(None) };
    if algorithm.trim() != "sha-256" {
        return Ok(None);
    }
    let encoded = value.trim().strip_prefix(':').and_then(|v| v.strip_suffix(':'));
    encoded
        .and_then(base64_32)
        .map(Some)
        .ok_or_else(|| bad("the sha-256 digest is written as sha-256=:44 characters of base64:"))
}

/// 32 bytes of base64 with its padding, strictly: one spelling for each value.
fn base64_32(encoded: &str) -> Option<[u8; 32]> {
    let digits = encoded.strip_suffix('=').filter(|d| d.len() == 43)?;
    let mut out = [0; 32];
    let mut slots = out.iter_mut();
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            *slots.next()? = (bits >> held) as u8;
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(out)
}

fn text(value: &HeaderValue) -> Result<&str, Failure> {
    value.to_str().map(str::trim).map_err(|_| bad("a digest header is not ASCII"))
}

fn bad(why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    // SHA-256 of the empty string.
    const EMPTY_HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const EMPTY_B64: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn read(pairs: &[(&'static str, &str)]) -> Result<Option<[u8; 32]>, Failure> {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        announced(&map)
    }

    #[test]
    fn every_way_to_say_it() {
        let empty: [u8; 32] = Sha256::digest([]).into();
        let field = format!("sha-256=:{EMPTY_B64}:");
        let with_others = format!("sha-512=:AAAA:, {field} , md5=:x:");
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("content-digest", "sha-512=:AAAA:")]).unwrap(), None);
        for pairs in [
            vec![(OWN, EMPTY_HEX)],
            vec![("content-digest", field.as_str())],
            vec![("repr-digest", field.as_str())],
            vec![("repr-digest", with_others.as_str())],
            vec![(OWN, EMPTY_HEX), ("repr-digest", field.as_str())],
        ] {
            assert_eq!(read(&pairs).unwrap(), Some(empty), "{pairs:?}");
        }
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        let other = "00".repeat(32);
        let not_canonical = format!("sha-256=:{}V=:", &EMPTY_B64[..42]);
        for pairs in [
            vec![(OWN, "abc")],
            vec![(OWN, EMPTY_HEX), (OWN, other.as_str())],
            vec![("content-digest", "sha-256=abc")],
            vec![("content-digest", "sha-256=::")],
            vec![("content-digest", not_canonical.as_str())],
            vec![("content-digest", "sha-256=:47DEQpj8HBSa-/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:")],
        ] {
            assert_eq!(read(&pairs).unwrap_err().code, ErrorCode::InvalidArgument, "{pairs:?}");
        }
    }
}
