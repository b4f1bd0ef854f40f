//! Entries as clients see them: in JSON, and as the headers of a file.

use hay_common::ids::ContentHash;
use hay_common::model::{EntryInfo, EntryKind};
use http::header::{ACCEPT_RANGES, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::request::attributes::metadata_headers;
use crate::request::conditions::{entity_tag, http_date};

/// Says what a path is: `file` or `directory`.
pub(crate) const TYPE_HEADER: HeaderName = HeaderName::from_static("x-haystore-type");

/// One entry of a listing.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct EntryJson {
    name: String,
    path: String,
    #[serde(rename = "type")]
    kind: EntryKind,
    size: u64,
    etag: Option<String>,
    modified: String,
    content_type: Option<String>,
}

impl From<EntryInfo> for EntryJson {
    fn from(entry: EntryInfo) -> Self {
        let inner = entry.path.strip_suffix('/').unwrap_or(&entry.path);
        Self {
            name: inner.rsplit('/').next().unwrap_or(inner).to_owned(),
            kind: entry.kind,
            size: entry.size,
            etag: entry.content_hash.map(entity_tag),
            modified: rfc3339(entry.modified_ms),
            content_type: entry.content_type,
            path: entry.path,
        }
    }
}

/// The headers that a file has in every answer to a read, 304 too.
pub(crate) fn file_headers(entry: &EntryInfo, headers: &mut HeaderMap) {
    validators(entry.content_hash, entry.modified_ms, headers);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
}

/// What later requests may name as the state that they know.
pub(crate) fn validators(hash: Option<ContentHash>, modified_ms: u64, headers: &mut HeaderMap) {
    if let Some(value) = hash.and_then(etag_value) {
        headers.insert(ETAG, value);
    }
    if let Ok(value) = HeaderValue::try_from(http_date(modified_ms)) {
        headers.insert(LAST_MODIFIED, value);
    }
}

/// What describes a file's bytes besides: for 200 and 206.
pub(crate) fn content_headers(entry: &EntryInfo, headers: &mut HeaderMap) {
    let content_type = entry
        .content_type
        .as_ref()
        .and_then(|t| HeaderValue::from_bytes(t.as_bytes()).ok())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(TYPE_HEADER, HeaderValue::from_static("file"));
    headers.extend(metadata_headers(&entry.user_metadata));
}

/// The tag as a header.
fn etag_value(hash: ContentHash) -> Option<HeaderValue> {
    HeaderValue::try_from(entity_tag(hash)).ok()
}

/// A time in UTC with milliseconds, as in `2026-01-31T08:15:30.123Z`.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    let mut text = String::with_capacity("2026-01-31T08:15:30.123Z".len());
    // Every answer to a put has one: seven numbers by way of a format string cost more than the rest of its JSON.
    let parts = [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (seconds / 3600, 2, ':'),
        (seconds / 60 % 60, 2, ':'),
        (seconds % 60, 2, '.'),
        (millis, 3, 'Z'),
    ];
    for (number, digits, after) in parts {
        push_number(&mut text, number, digits);
        text.push(after);
    }
    text
}

/// Decimal, with at least so many digits.
fn push_number(text: &mut String, number: u64, digits: u32) {
    if digits > 1 || number > 9 {
        push_number(text, number / 10, digits.saturating_sub(1));
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// Days since 1970 as a date of the Gregorian calendar (after Howard Hinnant's days-from-civil algorithms).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, in_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hay_common::ids::EntryId;

    #[test]
    fn times_are_written_in_utc() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_009, "9999-12-31T23:59:59.009Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), expected);
        }
    }

    #[test]
    fn names_are_last_segments() {
        for (path, name) in [("a", "a"), ("a/b", "b"), ("a/b/", "b"), ("", "")] {
            let entry = EntryInfo {
                id: EntryId::from_random(1),
                path: path.into(),
                kind: EntryKind::File,
                size: 3,
                content_hash: Some(ContentHash([1; 32])),
                modified_ms: 0,
                content_type: None,
                user_metadata: vec![],
                manifest: None,
                chunk_count: 1,
            };
            let json = serde_json::to_value(EntryJson::from(entry)).unwrap();
            assert_eq!(json["name"], name);
            assert_eq!(json["path"], path);
            assert_eq!(json["type"], "file");
            assert_eq!(json["etag"], format!("\"{}\"", "01".repeat(32)));
        }
    }
}
