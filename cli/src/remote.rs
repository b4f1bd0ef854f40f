//! Paths of stored files, as they are typed and as they stand in a URL.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stays as it is in a path segment of a URL: RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path that can't name anything stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemotePathError {
    /// `a//b`.
    #[error("{0:?} has an empty segment (two slashes in a row)")]
    EmptySegment(String),
    /// `.` or `..`: URL libraries resolve them silently, so they are refused before one sees them.
    #[error("{0:?} has a segment `.` or `..`; stored paths are never relative")]
    DotSegment(String),
    /// NUL.
    #[error("{0:?} holds a NUL character")]
    Nul(String),
    /// The root where a file is meant.
    #[error("the path names no file")]
    NoName,
}

/// A path in the caller's tree: no slash in front; a directory that was named as one ends in a slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemotePath {
    text: String,
}

impl RemotePath {
    /// Reads a path as it was typed, with or without a slash in front.
    ///
    /// # Errors
    /// Says what makes the path impossible.
    pub fn parse(typed: &str) -> Result<Self, RemotePathError> {
        let text = typed.strip_prefix('/').unwrap_or(typed);
        let inner = text.strip_suffix('/').unwrap_or(text);
        for segment in inner.split('/').filter(|_| !inner.is_empty()) {
            check_segment(typed, segment)?;
        }
        if text == "/" {
            return Err(RemotePathError::EmptySegment(typed.to_owned()));
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The path for people, with a slash in front.
    pub fn shown(&self) -> String {
        crate::output::shown(&format!("/{}", self.text))
    }

    /// The path as the server names it: no slash in front.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is the root of the tree.
    pub fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether it was named as a directory.
    pub fn is_directory(&self) -> bool {
        self.text.is_empty() || self.text.ends_with('/')
    }

    /// The same path named as a directory.
    pub fn as_directory(&self) -> Self {
        if self.is_directory() {
            return self.clone();
        }
        Self { text: format!("{}/", self.text) }
    }

    /// The last segment.
    ///
    /// # Errors
    /// The root has none.
    pub fn name(&self) -> Result<&str, RemotePathError> {
        let inner = self.text.strip_suffix('/').unwrap_or(&self.text);
        inner.rsplit('/').next().filter(|name| !name.is_empty()).ok_or(RemotePathError::NoName)
    }

    /// A path below this one.
    ///
    /// # Errors
    /// As [`RemotePath::parse`].
    pub fn join(&self, relative: &str) -> Result<Self, RemotePathError> {
        if relative.is_empty() {
            return Ok(self.as_directory());
        }
        Self::parse(&format!("{}{relative}", self.as_directory().text))
    }

    /// The path as it stands in a URL; slashes between segments stay.
    pub fn encoded(&self) -> String {
        let segments: Vec<String> =
            self.text.split('/').map(|s| utf8_percent_encode(s, ESCAPED).to_string()).collect();
        segments.join("/")
    }
}

fn check_segment(whole: &str, segment: &str) -> Result<(), RemotePathError> {
    match segment {
        "" => Err(RemotePathError::EmptySegment(whole.to_owned())),
        "." | ".." => Err(RemotePathError::DotSegment(whole.to_owned())),
        _ if segment.contains('\0') => Err(RemotePathError::Nul(whole.to_owned())),
        _ => Ok(()),
    }
}

/// A value as it stands in a URL's query.
pub fn encode_query(value: &str) -> String {
    utf8_percent_encode(value, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_with_and_without_a_slash_in_front() {
        assert_eq!(RemotePath::parse("/a/b").unwrap(), RemotePath::parse("a/b").unwrap());
        assert!(RemotePath::parse("/").unwrap().is_root());
        assert!(RemotePath::parse("").unwrap().is_root());
        assert!(RemotePath::parse("a/").unwrap().is_directory());
        assert_eq!(RemotePath::parse("/a/b/").unwrap().name().unwrap(), "b");
        assert_eq!(RemotePath::parse("/").unwrap().name(), Err(RemotePathError::NoName));
    }

    #[test]
    fn impossible_paths_are_refused_before_a_url_library_mends_them() {
        for path in ["..", "/a/../b", "a/./b", "a//b", "//", "a/..", "a\0b"] {
            assert!(RemotePath::parse(path).is_err(), "{path:?}");
        }
        assert!(RemotePath::parse("/a").unwrap().join("../b").is_err());
    }

    #[test]
    fn every_odd_character_is_escaped_but_the_slash() {
        let path = RemotePath::parse("/a b/ü%2e?#.txt").unwrap();
        assert_eq!(path.encoded(), "a%20b/%C3%BC%252e%3F%23.txt");
        assert_eq!(RemotePath::parse("x").unwrap().join("y/z").unwrap().encoded(), "x/y/z");
        assert_eq!(RemotePath::parse("/").unwrap().join("y").unwrap().encoded(), "y");
    }
}
