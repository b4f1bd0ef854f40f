//! `Range` and what of a file it asks for (RFC 9110, section 14).

use http::HeaderMap;
use http::header::RANGE;

/// What a `Range` header asks for, before the size of the file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RangeAsk {
    /// The whole file: no header, one that is not understood, or several ranges, which a server may ignore.
    Whole,
    /// From the first byte named to the last one named, or to the end.
    From(u64, Option<u64>),
    /// The last so many bytes.
    Suffix(u64),
}

/// What of a file of a known size is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it, with 200.
    Whole,
    /// `start..end`, not empty, with 206.
    Part {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Nothing of what is asked for is there: 416.
    Unsatisfiable,
}

impl RangeAsk {
    /// Reads the header. RFC 9110 wants what is not understood to be ignored, not refused; several lines are several
    /// ranges.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(RANGE).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line.to_str().ok().and_then(parse_text).unwrap_or(Self::Whole),
            _ => Self::Whole,
        }
    }

    /// What it means for a file of `size` bytes.
    pub(crate) fn select(self, size: u64) -> Selection {
        match self {
            Self::Whole => Selection::Whole,
            Self::From(first, _) if first >= size => Selection::Unsatisfiable,
            Self::From(first, last) => {
                Selection::Part { start: first, end: last.map_or(size, |l| l.saturating_add(1).min(size)) }
            }
            Self::Suffix(0) => Selection::Unsatisfiable,
            // Content-Range can't name a part of nothing.
            Self::Suffix(_) if size == 0 => Selection::Whole,
            Self::Suffix(count) => Selection::Part { start: size.saturating_sub(count), end: size },
        }
    }
}

fn parse_text(text: &str) -> Option<RangeAsk> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
    match (first, last) {
        ("", count) => Some(RangeAsk::Suffix(number(count)?)),
        (first, "") => Some(RangeAsk::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeAsk::From(first, Some(last)))
        }
    }
}

/// Digits only. What does not fit lies beyond any file.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use RangeAsk::{From, Suffix, Whole};
    use http::HeaderValue;

    fn of(lines: &[&[u8]]) -> RangeAsk {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(RANGE, HeaderValue::from_bytes(line).unwrap());
        }
        RangeAsk::of(&headers)
    }

    fn parse(text: &str) -> RangeAsk {
        of(&[text.as_bytes()])
    }

    #[test]
    fn several_lines_are_ignored_like_several_ranges() {
        assert_eq!(of(&[b"bytes=0-1"]), From(0, Some(1)));
        assert_eq!(of(&[b"bytes=0-1", b"bytes=4-5"]), Whole);
        assert_eq!(of(&[b"bytes=0-1", b"bytes=0-1"]), Whole);
    }

    #[test]
    fn headers_are_read_as_the_rfc_has_it() {
        assert_eq!(of(&[]), Whole);
        for (text, expected) in [
            ("bytes=0-0", From(0, Some(0))),
            ("bytes=0-499", From(0, Some(499))),
            ("bytes=500-", From(500, None)),
            ("bytes=-500", Suffix(500)),
            ("bytes=-0", Suffix(0)),
            ("BYTES=1-2", From(1, Some(2))),
            ("bytes= 1-2 ", From(1, Some(2))),
            ("bytes=007-08", From(7, Some(8))),
            ("bytes=0-99999999999999999999999", From(0, Some(u64::MAX))),
            ("bytes=99999999999999999999999-", From(u64::MAX, None)),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=5", Whole),
            ("bytes=5-4", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1-+2", Whole),
            ("bytes=1-2-3", Whole),
            ("bytes=0x1-2", Whole),
            ("items=0-5", Whole),
            ("0-5", Whole),
            ("bytes=0-1,4-5", Whole),
            ("bytes=0-1,", Whole),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        assert_eq!(of(&[b"bytes=0-\xff"]), Whole);
    }

    #[test]
    fn selections_stay_inside_the_file() {
        use Selection::{Part, Unsatisfiable};
        for (ask, size, expected) in [
            (Whole, 0, Selection::Whole),
            (From(0, None), 10, Part { start: 0, end: 10 }),
            (From(9, None), 10, Part { start: 9, end: 10 }),
            (From(10, None), 10, Unsatisfiable),
            (From(0, Some(0)), 10, Part { start: 0, end: 1 }),
            (From(2, Some(100)), 10, Part { start: 2, end: 10 }),
            (From(2, Some(u64::MAX)), 10, Part { start: 2, end: 10 }),
            (From(u64::MAX, None), u64::MAX - 1, Unsatisfiable),
            (From(0, None), 0, Unsatisfiable),
            (Suffix(3), 10, Part { start: 7, end: 10 }),
            (Suffix(30), 10, Part { start: 0, end: 10 }),
            (Suffix(0), 10, Unsatisfiable),
            (Suffix(3), 0, Selection::Whole),
        ] {
            assert_eq!(ask.select(size), expected, "{ask:?} of {size}");
        }
    }
}
