//! The Prometheus text of `/metrics`, as numbers.

use std::collections::BTreeMap;

/// All samples: name with labels, as it stands in the text → value.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|l| !l.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// Whether a metric of this name is there, with whatever labels.
    pub fn has(&self, name: &str) -> bool {
        self.labelled(name).next().is_some()
    }

    /// Over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.labelled(name).map(|(_, value)| value).sum()
    }

    /// The samples of one metric by the value of one label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        let wanted = format!("{label}=\"");
        for (labels, value) in self.labelled(name) {
            let of =
                labels.split_once(&wanted).and_then(|(_, rest)| rest.split_once('"')).map_or("", |(v, _)| v);
            *found.entry(of.to_owned()).or_insert(0.0) += value;
        }
        found
    }

    fn labelled<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(sample, value)| {
            let labels = sample.strip_prefix(name)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_label() {
        let text =
            "# HELP calls x\ncalls{method=\"Begin\",role=\"a\"} 3\ncalls{method=\"Read\"} 2\ncalls_more 9\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("calls"), 5.0);
        assert_eq!(metrics.by_label("calls", "method")["Begin"], 3.0);
        assert!(metrics.has("calls_more") && !metrics.has("call"));
    }
}
