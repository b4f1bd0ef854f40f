//! Conditional requests (RFC 9110, section 13). Our entity tags are strong: the content hash in quotes.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::ContentHash;
use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

/// Bytes of one of our tags: 64 digits in quotes.
const ENTITY_TAG_BYTES: usize = 66;
/// Tags in one condition, at most.
const TAGS_MAX: usize = 64;

/// `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Tags {
    /// No such header.
    #[default]
    Absent,
    /// `*`: whatever is there.
    Any,
    /// Hashes that may stand there. Tags that can't be ours are left out, so it may be empty.
    Listed(Vec<ContentHash>),
}

impl Tags {
    fn holds(&self, hash: Option<ContentHash>) -> Option<bool> {
        match self {
            Self::Absent => None,
            Self::Any => Some(true),
            Self::Listed(hashes) => Some(hash.is_some_and(|h| hashes.contains(&h))),
        }
    }
}

/// All conditions of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Conditions {
    /// `If-Match`, strong comparison: weak tags never match.
    pub(crate) if_match: Tags,
    /// `If-None-Match`, weak comparison.
    pub(crate) if_none_match: Tags,
    modified_since_ms: Option<u64>,
    unmodified_since_ms: Option<u64>,
}

/// What a condition on a read decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were no condition.
    Proceed,
    /// 304: the client's copy is good.
    NotModified,
    /// 412.
    Failed,
}

impl Conditions {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// `invalid_argument` where a tag list breaks its grammar: a condition is never dropped silently.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, Failure> {
        Ok(Self {
            if_match: tags(headers, IF_MATCH, Strength::Strong)?,
            if_none_match: tags(headers, IF_NONE_MATCH, Strength::Weak)?,
            modified_since_ms: date(headers, IF_MODIFIED_SINCE),
            unmodified_since_ms: date(headers, IF_UNMODIFIED_SINCE),
        })
    }

    /// The same for a write, where the store compares tags only.
    ///
    /// # Errors
    /// `invalid_argument` also for dates: ignoring them could overwrite what the caller meant to keep.
    pub(crate) fn parse_for_write(headers: &HeaderMap) -> Result<Self, Failure> {
        if headers.contains_key(IF_UNMODIFIED_SINCE) {
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                "If-Unmodified-Since is not supported on writes: use If-Match with the ETag",
            ));
        }
        Self::parse(headers)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `If-Match` can't hold whatever is there, because none of its tags can be one of ours.
    pub(crate) fn can_never_hold(&self) -> bool {
        matches!(&self.if_match, Tags::Listed(hashes) if hashes.is_empty())
    }

    /// The same for what is there but has neither tag nor date: a directory. Dates are ignored then.
    pub(crate) fn judge_bare(&self) -> Verdict {
        match (self.if_match.holds(None), self.if_none_match.holds(None)) {
            (Some(false), _) => Verdict::Failed,
            (_, Some(true)) => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    /// The order of RFC 9110, section 13.2.2, for GET and HEAD of a file that is there.
    pub(crate) fn judge_read(&self, hash: Option<ContentHash>, modified_ms: u64) -> Verdict {
        let seconds = modified_ms / 1000;
        match (self.if_match.holds(hash), self.unmodified_since_ms) {
            (Some(false), _) => return Verdict::Failed,
            (None, Some(since)) if seconds > since / 1000 => return Verdict::Failed,
            _ => {}
        }
        match (self.if_none_match.holds(hash), self.modified_since_ms) {
            (Some(true), _) => Verdict::NotModified,
            (None, Some(since)) if seconds <= since / 1000 => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }
}

/// Whether `If-Range`, where there is one, lets a range be answered (section 13.1.5): the strong tag or the exact
/// date of what is there.
pub(crate) fn if_range_holds(headers: &HeaderMap, hash: Option<ContentHash>, modified_ms: u64) -> bool {
    let Some(value) = headers.get(IF_RANGE) else { return true };
    let Ok(text) = value.to_str() else { return false };
    let text = text.trim();
    if text.starts_with('"') || text.starts_with("W/") {
        return hash.is_some_and(|h| text == entity_tag(h));
    }
    parse_date(text).is_some_and(|ms| ms / 1000 == modified_ms / 1000)
}

/// The entity tag of a content.
pub(crate) fn entity_tag(hash: ContentHash) -> String {
    // As long as it gets from the start: grown piece by piece it would be copied twice.
    let mut tag = String::with_capacity(ENTITY_TAG_BYTES);
    tag.push('"');
    let _ = write!(tag, "{hash}");
    tag.push('"');
    tag
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    Strong,
    Weak,
}

fn tags(headers: &HeaderMap, name: HeaderName, strength: Strength) -> Result<Tags, Failure> {
    let bad = |why: &str| Failure::new(ErrorCode::InvalidArgument, format!("{name} can't be used: {why}"));
    let mut lines = headers.get_all(&name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(Tags::Absent);
    }
    let (mut hashes, mut count, mut any) = (Vec::new(), 0, false);
    for line in lines {
        let mut rest = std::str::from_utf8(line.as_bytes()).map_err(|_| bad("it is not UTF-8"))?;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                break;
            }
            count += 1;
            if count > TAGS_MAX {
                return Err(bad("it lists too many tags"));
            }
            if let Some(after) = rest.strip_prefix('*') {
                (any, rest) = (true, after);
            } else {
                let (weak, tag, after) = one_tag(rest).ok_or_else(|| bad("a tag stands in double quotes"))?;
                if !(weak && strength == Strength::Strong) {
                    hashes.extend(tag.parse::<ContentHash>().ok());
                }
                rest = after;
            }
            rest = rest.trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(bad("tags are separated by commas"));
            }
        }
    }
    match (any, count) {
        (_, 0) => Err(bad("it is empty")),
        (true, 1) => Ok(Tags::Any),
        (true, _) => Err(bad("* stands alone")),
        (false, _) => Ok(Tags::Listed(hashes)),
    }
}

fn one_tag(text: &str) -> Option<(bool, &str, &str)> {
    let (weak, text) = text.strip_prefix("W/").map_or((false, text), |t| (true, t));
    let (tag, after) = text.strip_prefix('"')?.split_once('"')?;
    Some((weak, tag, after))
}

/// A date that can't be read is ignored, as the RFC wants it.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    parse_date(headers.get(name)?.to_str().ok()?)
}

fn parse_date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// `Last-Modified` of a time in milliseconds since 1970.
pub(crate) fn http_date(ms: u64) -> String {
    // httpdate writes years up to 9999 only.
    let seconds = (ms / 1000).min(253_402_300_799);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const A: ContentHash = ContentHash([0xaa; 32]);
    const B: ContentHash = ContentHash([0xbb; 32]);

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn tag_lists() {
        let (a, b) = (entity_tag(A), entity_tag(B));
        let weak = format!("W/{a}");
        for (text, strong, loose) in [
            (a.clone(), vec![A], vec![A]),
            (format!("{a}, {b}"), vec![A, B], vec![A, B]),
            (format!("{a},{b}"), vec![A, B], vec![A, B]),
            (format!(" , {a} ,, {b} ,"), vec![A, B], vec![A, B]),
            (weak.clone(), vec![], vec![A]),
            (format!("{weak}, {b}"), vec![B], vec![A, B]),
            ("\"other\"".into(), vec![], vec![]),
            ("\"with, comma\"".into(), vec![], vec![]),
            ("\"\"".into(), vec![], vec![]),
        ] {
            let parsed = Conditions::parse(&headers(&[(IF_MATCH, &text), (IF_NONE_MATCH, &text)])).unwrap();
            assert_eq!(parsed.if_match, Tags::Listed(strong.clone()), "{text}");
            assert_eq!(parsed.if_none_match, Tags::Listed(loose), "{text}");
            assert_eq!(parsed.can_never_hold(), strong.is_empty(), "{text}");
        }
        let two_lines = headers(&[(IF_MATCH, &a), (IF_MATCH, &b)]);
        assert_eq!(Conditions::parse(&two_lines).unwrap().if_match, Tags::Listed(vec![A, B]));
        assert_eq!(Conditions::parse(&headers(&[(IF_NONE_MATCH, " * ")])).unwrap().if_none_match, Tags::Any);
        assert!(Conditions::parse(&HeaderMap::new()).unwrap().is_empty());
    }

    #[test]
    fn broken_lists_are_refused() {
        for text in ["", ",", "abc", "\"a", "a\"", "*, \"a\"", "\"a\" \"b\"", "**", "w/\"a\"", "W/abc"] {
            assert!(Conditions::parse(&headers(&[(IF_MATCH, text)])).is_err(), "{text:?}");
        }
        let many = vec!["\"x\""; TAGS_MAX + 1].join(",");
        assert!(Conditions::parse(&headers(&[(IF_MATCH, &many)])).is_err());
    }

    #[test]
    fn reads_are_judged_in_the_order_of_the_rfc() {
        let (a, b) = (entity_tag(A), entity_tag(B));
        let modified_ms = 1_700_000_000_500;
        let (before, same, after) =
            (http_date(modified_ms - 10_000), http_date(modified_ms), http_date(modified_ms + 10_000));
        let weak = format!("W/{a}");
        use Verdict::{Failed, NotModified, Proceed};
        for (pairs, expected) in [
            (vec![], Proceed),
            (vec![(IF_MATCH, a.as_str())], Proceed),
            (vec![(IF_MATCH, "*")], Proceed),
            (vec![(IF_MATCH, b.as_str())], Failed),
            (vec![(IF_MATCH, weak.as_str())], Failed),
            (vec![(IF_NONE_MATCH, a.as_str())], NotModified),
            (vec![(IF_NONE_MATCH, weak.as_str())], NotModified),
            (vec![(IF_NONE_MATCH, "*")], NotModified),
            (vec![(IF_NONE_MATCH, b.as_str())], Proceed),
            (vec![(IF_MODIFIED_SINCE, before.as_str())], Proceed),
            (vec![(IF_MODIFIED_SINCE, same.as_str())], NotModified),
            (vec![(IF_MODIFIED_SINCE, after.as_str())], NotModified),
            (vec![(IF_MODIFIED_SINCE, "yesterday")], Proceed),
            (vec![(IF_UNMODIFIED_SINCE, before.as_str())], Failed),
            (vec![(IF_UNMODIFIED_SINCE, same.as_str())], Proceed),
            // Tags win over dates.
            (vec![(IF_MATCH, a.as_str()), (IF_UNMODIFIED_SINCE, before.as_str())], Proceed),
            (vec![(IF_NONE_MATCH, b.as_str()), (IF_MODIFIED_SINCE, after.as_str())], Proceed),
            (vec![(IF_MATCH, b.as_str()), (IF_NONE_MATCH, a.as_str())], Failed),
        ] {
            let parsed = Conditions::parse(&headers(&pairs)).unwrap();
            assert_eq!(parsed.judge_read(Some(A), modified_ms), expected, "{pairs:?}");
        }
    }

    #[test]
    fn if_range_needs_the_strong_tag_or_the_exact_date() {
        let modified_ms = 1_700_000_000_500;
        for (text, holds) in [
            (entity_tag(A), true),
            (entity_tag(B), false),
            (format!("W/{}", entity_tag(A)), false),
            (http_date(modified_ms), true),
            (http_date(modified_ms + 1000), false),
            ("nonsense".into(), false),
        ] {
            assert_eq!(if_range_holds(&headers(&[(IF_RANGE, &text)]), Some(A), modified_ms), holds, "{text}");
        }
        assert!(if_range_holds(&HeaderMap::new(), Some(A), modified_ms));
    }

    #[test]
    fn dates_on_writes_are_refused_not_ignored() {
        let date = http_date(1_700_000_000_000);
        assert!(Conditions::parse_for_write(&headers(&[(IF_UNMODIFIED_SINCE, &date)])).is_err());
    }
}
