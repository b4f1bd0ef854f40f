//! Query strings: a few known names, each at most once; a value that can't be read is refused, never guessed.

use hay_common::error::{ErrorCode, Failure};

use super::path;

/// The pairs of a query string.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d` as forms do: `+` is a space.
    ///
    /// # Errors
    /// `invalid_argument` for escapes that can't be decoded, and for a name that stands twice.
    pub(crate) fn parse(raw: Option<&str>) -> Result<Self, Failure> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in raw.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if pairs.iter().any(|(n, _)| *n == name) {
                return Err(bad(&name, "stands more than once"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A yes or no; absent is no, a bare name is yes.
    ///
    /// # Errors
    /// `invalid_argument` for anything else.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(bad(name, "takes true or false")),
        }
    }

    /// A number between 1 and `max`.
    ///
    /// # Errors
    /// `invalid_argument` outside of it.
    pub(crate) fn count(&self, name: &str, default: usize, max: usize) -> Result<usize, Failure> {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.parse() {
            Ok(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(bad(name, &format!("takes a number from 1 to {max}"))),
        }
    }
}

fn decode(text: &str) -> Result<String, Failure> {
    path::decode(&text.replace('+', " ")).map(std::borrow::Cow::into_owned).map_err(|_| {
        Failure::new(ErrorCode::InvalidArgument, "the query string is not percent-encoded UTF-8")
    })
}

fn bad(name: &str, why: &str) -> Failure {
    let name: String = name.chars().take(40).collect();
    Failure::new(ErrorCode::InvalidArgument, format!("the parameter {name:?} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_as_forms_are() {
        let query = Query::parse(Some("after=a%2Fb+c%2B&recursive&limit=10&&x=")).unwrap();
        assert_eq!(query.text("after"), Some("a/b c+"));
        assert!(query.flag("recursive").unwrap());
        assert!(!query.flag("other").unwrap());
        assert_eq!(query.count("limit", 5, 10).unwrap(), 10);
        assert_eq!(query.count("more", 5, 10).unwrap(), 5);
    }

    #[test]
    fn what_can_not_be_read_is_refused() {
        assert!(Query::parse(Some("a=%zz")).is_err());
        assert!(Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(Some("a=1&a=2")).is_err());
        let query = Query::parse(Some("limit=11&zero=0&flag=yes&neg=-1")).unwrap();
        assert!(query.count("limit", 5, 10).is_err());
        assert!(query.count("zero", 5, 10).is_err());
        assert!(query.count("neg", 5, 10).is_err());
        assert!(query.flag("flag").is_err());
    }
}
