//! Paths of files as they stand in a URL.
//!
//! The raw path is decoded exactly once, then split: an encoded slash separates like a plain one, so that nothing
//! that a later reader could take for `..` ever passes. Names are kept as given, byte for byte; only what would make
//! two spellings of one path, or a path that leaves its tree, is refused.

use std::borrow::Cow;

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX, SEGMENT_BYTES_MAX};
use percent_encoding::percent_decode_str;

/// The word in front of a path that names another tenant's tree.
const TENANT_PREFIX: &str = "tenant:";

/// A path inside one tree: without a slash in front, with one at the end where a directory is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreePath {
    text: String,
    tenant: Option<String>,
}

impl TreePath {
    /// Reads what follows the route in the raw request path.
    ///
    /// # Errors
    /// `invalid_path`, naming the rule that is broken.
    pub(crate) fn parse(raw: &str) -> Result<Self, Failure> {
        let decoded = decode(raw)?;
        if decoded.contains('\0') {
            return Err(invalid("it holds a NUL byte"));
        }
        let (tenant, text) = split_tenant(&decoded)?;
        check(text)?;
        Ok(Self { text: text.to_owned(), tenant })
    }

    /// The path itself; empty for the root.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The tenant that `/tenant:NAME/` names, if any.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// Whether it is the root of the tree.
    pub(crate) fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a directory is meant: the root, or a slash at the end.
    pub(crate) fn is_directory(&self) -> bool {
        self.text.is_empty() || self.text.ends_with('/')
    }

    /// The same path with a directory meant.
    pub(crate) fn into_directory(mut self) -> Self {
        if !self.is_directory() {
            self.text.push('/');
        }
        self
    }
}

/// Decodes `%XX` once; what is no such escape, or no UTF-8, is refused rather than guessed at.
pub(crate) fn decode(raw: &str) -> Result<Cow<'_, str>, Failure> {
    let mut rest = raw.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {
                rest = rest.get(at + 3..).unwrap_or(&[])
            }
            _ => return Err(invalid("a % is not followed by two hexadecimal digits")),
        }
    }
    percent_decode_str(raw).decode_utf8().map_err(|_| invalid("it is not UTF-8"))
}

fn split_tenant(decoded: &str) -> Result<(Option<String>, &str), Failure> {
    let Some(named) = decoded.strip_prefix(TENANT_PREFIX) else { return Ok((None, decoded)) };
    let (name, rest) = named.split_once('/').unwrap_or((named, ""));
    if name.is_empty() || name.len() > SEGMENT_BYTES_MAX {
        return Err(invalid("\"tenant:\" in front of a path is reserved and needs a tenant's name"));
    }
    Ok((Some(name.to_owned()), rest))
}

fn check(text: &str) -> Result<(), Failure> {
    if text.len() > PATH_BYTES_MAX {
        return Err(invalid(&format!("it has {} bytes, at most {PATH_BYTES_MAX} are allowed", text.len())));
    }
    if text.is_empty() {
        return Ok(());
    }
    let segments = text.strip_suffix('/').unwrap_or(text);
    let mut depth = 0;
    for segment in segments.split('/') {
        depth += 1;
        match segment {
            "" => return Err(invalid("it has an empty segment (two slashes in a row, or one in front)")),
            "." | ".." => return Err(invalid("\".\" and \"..\" are no names")),
            long if long.len() > SEGMENT_BYTES_MAX => {
                return Err(invalid(&format!(
                    "a segment has {} bytes, at most {SEGMENT_BYTES_MAX} are allowed",
                    long.len()
                )));
            }
            _ => {}
        }
    }
    if depth > PATH_DEPTH_MAX {
        return Err(invalid(&format!("it has {depth} segments, at most {PATH_DEPTH_MAX} are allowed")));
    }
    Ok(())
}

fn invalid(why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidPath, format!("the path can't be used: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(raw: &str) -> String {
        TreePath::parse(raw).unwrap_or_else(|e| panic!("{raw:?}: {e}")).as_str().to_owned()
    }

    #[test]
    fn good_paths_are_kept_as_given() {
        for (raw, expected) in [
            ("", ""),
            ("a", "a"),
            ("a/b", "a/b"),
            ("a/", "a/"),
            ("a%2Fb", "a/b"),
            ("a%2fb%2F", "a/b/"),
            ("with%20space", "with space"),
            ("plus+stays", "plus+stays"),
            ("%C3%A4/%E2%82%AC", "ä/€"),
            // Decomposed and composed forms are two names.
            ("a%CC%88", "a\u{308}"),
            // Decoded once, not twice.
            ("%252e%252e/x", "%2e%2e/x"),
            ("...", "..."),
            (".hidden", ".hidden"),
            ("a..b", "a..b"),
            ("line%0Abreak", "line\nbreak"),
            ("a:b", "a:b"),
            ("x/tenant:y", "x/tenant:y"),
            ("back%5Cslash", "back\\slash"),
        ] {
            assert_eq!(text(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn bad_paths_are_refused_in_every_encoding() {
        for raw in [
            ".",
            "..",
            "./a",
            "../a",
            "a/.",
            "a/..",
            "a/./b",
            "a/../b",
            "a/../",
            "%2e",
            "%2E%2e",
            "a/%2e%2e/b",
            "a/.%2E/b",
            "%2e%2e%2fetc",
            "a%2f..%2fb",
            "..%2f",
            "/a",
            "//",
            "/",
            "a//b",
            "a%2F%2Fb",
            "%2Fa",
            "a//",
            "%00",
            "a%00b",
            "a/b%00",
            "%FF",
            "%C3%28",
            "%ED%A0%80",
            "%C0%AE%C0%AE",
            "%",
            "%2",
            "a%zz",
            "a%%20",
            "%+2",
            "tenant:",
            "tenant:/a",
            "tenant:x//a",
            "tenant:x/../a",
            "%74enant:/a",
            "tenant%3A/..",
        ] {
            let failure = TreePath::parse(raw).expect_err(raw);
            assert_eq!(failure.code, ErrorCode::InvalidPath, "{raw:?}");
        }
    }

    #[test]
    fn limits_hold_at_their_edge() {
        assert!(TreePath::parse(&"s".repeat(SEGMENT_BYTES_MAX)).is_ok());
        assert!(TreePath::parse(&"s".repeat(SEGMENT_BYTES_MAX + 1)).is_err());
        assert!(TreePath::parse(&vec!["d"; PATH_DEPTH_MAX].join("/")).is_ok());
        assert!(TreePath::parse(&vec!["d"; PATH_DEPTH_MAX + 1].join("/")).is_err());
        let long = vec!["s".repeat(204); 5].join("/");
        assert_eq!(long.len(), PATH_BYTES_MAX);
        assert!(TreePath::parse(&long).is_ok());
        assert!(TreePath::parse(&format!("{long}s")).is_err());
        // Bytes count, not characters.
        assert!(TreePath::parse(&"%C3%A4".repeat(SEGMENT_BYTES_MAX / 2 + 1)).is_err());
    }

    #[test]
    fn a_tenant_in_front_names_the_tree() {
        for (raw, tenant, path) in [
            ("tenant:default/a/b", "default", "a/b"),
            ("tenant%3Adefault/a", "default", "a"),
            ("tenant:default", "default", ""),
            ("tenant:default/", "default", ""),
            ("tenant:de%20f/a/", "de f", "a/"),
        ] {
            let parsed = TreePath::parse(raw).unwrap();
            assert_eq!((parsed.tenant(), parsed.as_str()), (Some(tenant), path), "{raw:?}");
        }
        assert_eq!(TreePath::parse("a").unwrap().tenant(), None);
    }

    #[test]
    fn a_slash_at_the_end_means_a_directory() {
        assert!(TreePath::parse("").unwrap().is_root());
        assert!(TreePath::parse("a/").unwrap().is_directory());
        assert!(!TreePath::parse("a").unwrap().is_directory());
        assert_eq!(TreePath::parse("a").unwrap().into_directory().as_str(), "a/");
        assert_eq!(TreePath::parse("").unwrap().into_directory().as_str(), "");
    }

    proptest! {
        #[test]
        fn what_passes_never_leaves_its_tree(raw in "([a-z./%0-9A-F]|%2e|%2f|%00){0,40}") {
            if let Ok(path) = TreePath::parse(&raw) {
                let inner = path.as_str().strip_suffix('/').unwrap_or(path.as_str());
                let bad = |s: &str| s.is_empty() || s == "." || s == ".." || s.contains('\0');
                prop_assert!(path.is_root() || !inner.split('/').any(bad));
            }
        }
    }
}
