//! The server's own figures, from the text of `/metrics`.

use std::collections::BTreeMap;

/// What the server calls the things that are reported.
pub mod names {
    /// CPU seconds of the process, user and system.
    pub const CPU_SECONDS: &str = "process_cpu_seconds_total";
    /// The largest resident memory so far, in bytes.
    pub const PEAK_RSS_BYTES: &str = "process_resident_memory_peak_bytes";
    /// Commands that went through the replicated logs.
    pub const COMMANDS: &str = "hay_raft_commands_total";
    /// Bytes of the logs.
    pub const LOG_BYTES: &str = "hay_raft_log_bytes_total";
    /// Syncs of the logs.
    pub const LOG_SYNCS: &str = "hay_raft_log_syncs_total";
    /// Needles that were appended to volumes.
    pub const APPENDS: &str = "hay_volume_appends_total";
    /// Bytes of their records.
    pub const APPEND_BYTES: &str = "hay_volume_append_bytes_total";
    /// Syncs of volumes.
    pub const APPEND_SYNCS: &str = "hay_volume_syncs_total";
}

/// One reading, each name summed over its labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    values: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads the text format of Prometheus. Lines that are none are passed over.
    pub fn parse(text: &str) -> Self {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((name, value)) = sample(line) else { continue };
            *values.entry(name.to_owned()).or_insert(0.0) += value;
        }
        Self { values }
    }

    /// A value, summed over its labels.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// How much a value grew since `before`.
    pub fn since(&self, before: &Self, name: &str) -> Option<f64> {
        let now = self.get(name)?;
        // What was never counted before is not there yet.
        Some(now - before.get(name).unwrap_or(0.0))
    }
}

fn sample(line: &str) -> Option<(&str, f64)> {
    let name_end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(name_end);
    // A label's value may hold anything but an unescaped quote; the last brace ends the labels.
    let rest = if rest.starts_with('{') { rest.get(rest.rfind('}')? + 1..)? } else { rest };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP process_cpu_seconds_total CPU
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
hay_volume_syncs_total{class=\"small\",dir=\"a b}\"} 10
hay_volume_syncs_total{class=\"large\"} 5 1700000000
broken line here
";

    #[test]
    fn names_are_summed_over_their_labels() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.get(names::CPU_SECONDS), Some(12.5));
        assert_eq!(scrape.get(names::APPEND_SYNCS), Some(15.0));
        assert_eq!(scrape.get(names::PEAK_RSS_BYTES), None);
    }

    #[test]
    fn growth_counts_from_nothing_where_nothing_was() {
        let before = Scrape::parse("process_cpu_seconds_total 2\n");
        let after = Scrape::parse(TEXT);
        assert_eq!(after.since(&before, names::CPU_SECONDS), Some(10.5));
        assert_eq!(after.since(&before, names::APPEND_SYNCS), Some(15.0));
        assert_eq!(after.since(&before, names::COMMANDS), None);
    }
}
