//! Answers of the server. Unknown fields are passed over, so that an older `hay` reads a newer server.

use serde::{Deserialize, Serialize};

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// Bytes.
    File,
    /// Other entries.
    Directory,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The last segment.
    pub name: String,
    /// The whole path, without a slash in front; a directory's ends in one.
    pub path: String,
    /// File or directory.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// Bytes; 0 for a directory.
    #[serde(default)]
    pub size: u64,
    /// The content hash, without quotes.
    #[serde(default, deserialize_with = "unquoted")]
    pub etag: Option<String>,
    /// When it was written, as the server says it.
    #[serde(default)]
    pub modified: Option<serde_json::Value>,
    /// As the writer gave it.
    #[serde(default)]
    pub content_type: Option<String>,
}

/// An entity tag without the quotes that it has in a header.
fn unquoted<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let tag: Option<String> = Option::deserialize(deserializer)?;
    Ok(tag.map(|tag| tag.trim_matches('"').to_owned()))
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listing {
    /// In the order of their names' bytes.
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there is one.
    #[serde(default)]
    pub next: Option<String>,
}

/// What HEAD tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stat {
    /// The path, with a slash in front.
    pub path: String,
    /// File or directory.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// The content hash, without quotes.
    pub etag: Option<String>,
    /// `Last-Modified` as it came.
    pub modified: Option<String>,
    /// As the writer gave it.
    pub content_type: Option<String>,
    /// `X-Haystore-Meta-*` as it came, names in lower case.
    pub metadata: std::collections::BTreeMap<String, String>,
}
