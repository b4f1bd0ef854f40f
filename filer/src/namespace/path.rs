//! The rules of paths. The gateway checks them too; here they are law.

use hay_common::error::{ErrorCode, Failure};
use hay_common::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX, SEGMENT_BYTES_MAX};

/// In front of a path this names a tree explicitly; no entry of a tree may begin so.
pub const RESERVED_FRONT: &str = "tenant:";

/// A text that is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not text.
    #[error("a path must be UTF-8")]
    NotUtf8,
    /// Too long.
    #[error("a path has at most {PATH_BYTES_MAX} bytes, this one {0}")]
    TooLong(usize),
    /// Too many segments.
    #[error("a path has at most {PATH_DEPTH_MAX} segments, this one {0}")]
    TooDeep(usize),
    /// A segment is too long.
    #[error("a segment of a path has at most {SEGMENT_BYTES_MAX} bytes, one of this path {0}")]
    SegmentTooLong(usize),
    /// Nothing between two slashes, or a slash in front.
    #[error("a path has no empty segments and no slash in front: {0:?}")]
    EmptySegment(String),
    /// `.` or `..`.
    #[error("a path has no segments . or ..: {0:?}")]
    DotSegment(String),
    /// NUL.
    #[error("a path has no NUL")]
    Nul,
    /// The reserved front.
    #[error("no path inside a tree begins with {RESERVED_FRONT:?}: {0:?}")]
    Reserved(String),
    /// A directory's path where a file's was meant.
    #[error("a file's path does not end in a slash, and is not empty: {0:?}")]
    NotAFile(String),
    /// A file's path where a directory's was meant.
    #[error("a directory's path ends in a slash: {0:?}")]
    NotADirectory(String),
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Failure::new(ErrorCode::InvalidPath, error.to_string())
    }
}

/// A path inside a tenant's tree that keeps the rules. A directory's ends in a slash; the root's is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryPath<'a>(&'a str);

impl<'a> EntryPath<'a> {
    /// Checks the rules.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn parse(text: &'a str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong(text.len()));
        }
        let segments = text.strip_suffix('/').unwrap_or(text);
        if segments.is_empty() {
            // "" is the root; "/" would be an empty segment.
            return if text.is_empty() {
                Ok(Self(text))
            } else {
                Err(PathError::EmptySegment(text.to_owned()))
            };
        }
        if text.starts_with(RESERVED_FRONT) {
            return Err(PathError::Reserved(text.to_owned()));
        }
        let mut depth = 0;
        for segment in segments.split('/') {
            depth += 1;
            match segment {
                "" => return Err(PathError::EmptySegment(text.to_owned())),
                "." | ".." => return Err(PathError::DotSegment(text.to_owned())),
                long if long.len() > SEGMENT_BYTES_MAX => return Err(PathError::SegmentTooLong(long.len())),
                _ => {}
            }
        }
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooDeep(depth));
        }
        if text.as_bytes().contains(&0) {
            return Err(PathError::Nul);
        }
        Ok(Self(text))
    }

    /// As [`EntryPath::parse`], for a file.
    ///
    /// # Errors
    /// Also where it names a directory.
    pub fn file(text: &'a str) -> Result<Self, PathError> {
        let path = Self::parse(text)?;
        if path.is_directory() { Err(PathError::NotAFile(text.to_owned())) } else { Ok(path) }
    }

    /// As [`EntryPath::parse`], for a directory.
    ///
    /// # Errors
    /// Also where it names a file.
    pub fn directory(text: &'a str) -> Result<Self, PathError> {
        let path = Self::parse(text)?;
        if path.is_directory() { Ok(path) } else { Err(PathError::NotADirectory(text.to_owned())) }
    }

    /// The text.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// Whether it names a directory.
    pub fn is_directory(&self) -> bool {
        self.0.is_empty() || self.0.ends_with('/')
    }

    /// Whether it names the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directories above, from the innermost outwards, without the root.
    pub fn parents(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let text = self.0;
        let inner = text.strip_suffix('/').unwrap_or(text);
        inner.rmatch_indices('/').filter_map(move |(at, _)| text.get(..=at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path_and_what_is_not() {
        let long_segment = "x".repeat(SEGMENT_BYTES_MAX + 1);
        let deep = vec!["d"; PATH_DEPTH_MAX + 1].join("/");
        let long = vec!["abcdefgh"; 120].join("/");
        for (text, good) in [
            ("", true),
            ("a", true),
            ("a/", true),
            ("a/b", true),
            ("ä/ö", true),
            ("a b/.c/..d/...", true),
            ("x/tenant:y", true),
            ("/", false),
            ("/a", false),
            ("a//b", false),
            ("a//", false),
            (".", false),
            ("..", false),
            ("a/../b", false),
            ("a/.", false),
            ("./a", false),
            ("../", false),
            ("a\0b", false),
            ("tenant:x/a", false),
            (long_segment.as_str(), false),
            (deep.as_str(), false),
            (long.as_str(), false),
        ] {
            assert_eq!(EntryPath::parse(text).is_ok(), good, "{text:?}");
        }
        assert!(EntryPath::parse(&deep[2..]).is_ok());
        assert!(
            EntryPath::file("a/").is_err() && EntryPath::file("").is_err() && EntryPath::file("a").is_ok()
        );
        assert!(EntryPath::directory("a").is_err() && EntryPath::directory("").is_ok());
    }

    #[test]
    fn parents_from_the_innermost_outwards() {
        let parents = |text| EntryPath::parse(text).unwrap().parents().collect::<Vec<_>>();
        assert_eq!(parents("a/b/c"), ["a/b/", "a/"]);
        assert_eq!(parents("a/b/"), ["a/"]);
        assert!(parents("a").is_empty() && parents("a/").is_empty() && parents("").is_empty());
    }
}
