//! What is reported, for programs and for people.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::stats::{median, per};
use crate::output::Output;
use crate::units::show_bytes;

/// One mode's figures. The first seven fields are the interface; the others explain them.
#[derive(Debug, Clone, Serialize)]
pub struct ModeReport {
    /// Operations a second over all kept slices.
    pub ops_per_s: f64,
    /// Bytes of objects a second.
    pub bytes_per_s: f64,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// The median over the pairs of work to floor, both in operations a second.
    pub floor_ratio: Option<f64>,
    /// Large objects: the same against a bare gRPC stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_stream_ratio: Option<f64>,
    /// Small ones: the same against two bare gRPC calls for a read, three for a write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_calls_ratio: Option<f64>,
    /// Operations in the kept slices.
    pub ops: u64,
    /// Pairs that were kept.
    pub pairs: usize,
    /// Pairs that were repeated because of steal.
    pub pairs_repeated: u32,
    /// Steal of the kept pairs, in percent: the median.
    pub steal_percent_median: Option<f64>,
    /// And the worst.
    pub steal_percent_max: Option<f64>,
    /// CPU of the server for each operation, with all other processes of the cluster that were named.
    pub server_cpu_us_per_op: Option<f64>,
    /// … of each process, the gateway first, where others were named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<RoleReport>,
    /// What shared a sync of the metadata log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands_per_sync: Option<f64>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_bytes_per_sync: Option<f64>,
    /// Needles that shared a sync of a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub appends_per_sync: Option<f64>,
    /// In bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_sync: Option<f64>,
    /// Each floor.
    pub floors: Vec<FloorReport>,
}

/// One process of a cluster.
#[derive(Debug, Clone, Serialize)]
pub struct RoleReport {
    /// Its name.
    pub name: String,
    /// CPU for each operation of the whole.
    pub cpu_us_per_op: Option<f64>,
}

/// One floor's figures.
#[derive(Debug, Clone, Serialize)]
pub struct FloorReport {
    /// `http`, `sync`, `grpc` (a stream) or `calls`.
    pub name: &'static str,
    /// The median of its slices.
    pub ops_per_s: Option<f64>,
    /// The median over the pairs of work to this floor.
    pub ratio: Option<f64>,
    /// CPU of its process for each operation.
    pub cpu_us_per_op: Option<f64>,
}

/// What the server used.
#[derive(Debug, Clone, Serialize)]
pub struct ServerReport {
    /// CPU seconds in the slices of work.
    pub cpu_s: Option<f64>,
    /// The largest resident memory since its start.
    pub peak_rss_bytes: Option<u64>,
}

/// The whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Storing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<ModeReport>,
    /// Reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<ModeReport>,
    /// The server.
    pub server: ServerReport,
    /// What acknowledged means on that server.
    pub durability: String,
    /// Bytes of an object.
    pub size_bytes: u64,
    /// Objects asked for.
    pub count: u64,
    /// Requests in work at once.
    pub concurrency: usize,
    /// Threads of the load client.
    pub client_threads: usize,
    /// CPUs of the machine.
    pub cpus: usize,
}

/// A pair that counts.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Operations a second of the work.
    pub work: f64,
    /// Of each floor, in the order of their names.
    pub floors: Vec<f64>,
    /// Of the time of the pair, in percent.
    pub steal_percent: f64,
}

/// Sums over the slices of a mode.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// Operations.
    pub ops: u64,
    /// Seconds.
    pub seconds: f64,
    /// CPU seconds of the server and the other processes; absent where they do not tell.
    pub cpu_s: Option<f64>,
    /// CPU seconds of each, the server's first.
    pub roles: Vec<Option<f64>>,
    /// What the metadata log wrote.
    pub log: Option<PerSync>,
    /// What the volumes wrote.
    pub volumes: Option<PerSync>,
}

/// Things and bytes that shared syncs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerSync {
    /// Commands or needles.
    pub items: f64,
    /// Bytes.
    pub bytes: f64,
    /// The syncs.
    pub syncs: f64,
}

impl PerSync {
    /// From what the server tells; nothing where it does not count the syncs.
    pub fn new(items: Option<f64>, bytes: Option<f64>, syncs: Option<f64>) -> Option<Self> {
        Some(Self { items: items?, bytes: bytes.unwrap_or(0.0), syncs: syncs? })
    }

    /// Two slices together.
    pub fn add(so_far: Option<Self>, more: Option<Self>) -> Option<Self> {
        let (Some(a), Some(b)) = (so_far, more) else { return so_far.or(more) };
        Some(Self { items: a.items + b.items, bytes: a.bytes + b.bytes, syncs: a.syncs + b.syncs })
    }

    fn items_each(self) -> Option<f64> {
        per(self.items, self.syncs)
    }

    fn bytes_each(self) -> Option<f64> {
        per(self.bytes, self.syncs)
    }
}

/// What one floor came to.
#[derive(Debug, Clone)]
pub struct FloorSums {
    /// Its name.
    pub name: &'static str,
    /// Operations.
    pub ops: u64,
    /// CPU seconds.
    pub cpu_s: Option<f64>,
}

/// The names of the floors that are told apart: comparisons beside the floor.
pub const GRPC: &str = "grpc";
/// See [`GRPC`].
pub const CALLS: &str = "calls";

/// Puts a mode's figures together.
pub fn mode_report(
    size: u64,
    pairs: &[Pair],
    repeated: u32,
    sums: &Sums,
    floors: &[FloorSums],
    latency: &Histogram<u64>,
) -> ModeReport {
    let us = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    let ops_per_s = per(sums.ops as f64, sums.seconds).unwrap_or(0.0);
    let floors: Vec<FloorReport> = floors
        .iter()
        .enumerate()
        .map(|(number, floor)| {
            let rates = || pairs.iter().filter_map(move |pair| pair.floors.get(number).copied());
            FloorReport {
                name: floor.name,
                ops_per_s: median(rates()),
                ratio: median(pairs.iter().zip(rates()).filter_map(|(pair, rate)| per(pair.work, rate))),
                cpu_us_per_op: floor.cpu_s.and_then(|cpu| per(cpu * 1e6, floor.ops as f64)),
            }
        })
        .collect();
    ModeReport {
        ops_per_s,
        bytes_per_s: ops_per_s * size as f64,
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        max_us: latency.max() as f64 / 1_000.0,
        floor_ratio: slower_floor_ratio(&floors),
        grpc_stream_ratio: ratio_of(&floors, GRPC),
        grpc_calls_ratio: ratio_of(&floors, CALLS),
        ops: sums.ops,
        pairs: pairs.len(),
        pairs_repeated: repeated,
        steal_percent_median: median(pairs.iter().map(|pair| pair.steal_percent)),
        steal_percent_max: pairs.iter().map(|pair| pair.steal_percent).reduce(f64::max),
        server_cpu_us_per_op: sums.cpu_s.and_then(|cpu| per(cpu * 1e6, sums.ops as f64)),
        roles: Vec::new(),
        commands_per_sync: sums.log.and_then(PerSync::items_each),
        log_bytes_per_sync: sums.log.and_then(PerSync::bytes_each),
        appends_per_sync: sums.volumes.and_then(PerSync::items_each),
        bytes_per_sync: sums.volumes.and_then(PerSync::bytes_each),
        floors,
    }
}

fn ratio_of(floors: &[FloorReport], name: &str) -> Option<f64> {
    floors.iter().find(|floor| floor.name == name).and_then(|floor| floor.ratio)
}

/// CPU of each process for each operation.
pub fn role_reports<'a>(names: impl Iterator<Item = &'a str>, sums: &Sums) -> Vec<RoleReport> {
    let cpu = |used: &Option<f64>| used.and_then(|cpu| per(cpu * 1e6, sums.ops as f64));
    let role = |(name, used): (&str, _)| RoleReport { name: name.to_owned(), cpu_us_per_op: cpu(used) };
    names.zip(&sums.roles).map(role).collect()
}

/// The ratio to the floor that is the slower one over the whole run: which it is must not change from pair to pair,
/// or noise alone would choose the kinder one.
fn slower_floor_ratio(floors: &[FloorReport]) -> Option<f64> {
    let floors = floors.iter().filter(|floor| ![GRPC, CALLS].contains(&floor.name));
    let slower =
        floors.min_by(|a, b| a.ops_per_s.unwrap_or(f64::MAX).total_cmp(&b.ops_per_s.unwrap_or(f64::MAX)))?;
    slower.ratio
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value * 100.0))
}

impl Report {
    /// For people.
    pub fn print(&self, out: Output) -> std::io::Result<()> {
        out.line(format_args!(
            "{} objects of {}, {} at once, durability {}",
            self.count,
            show_bytes(self.size_bytes),
            self.concurrency,
            self.durability
        ))?;
        for (name, mode) in [("write", &self.write), ("read", &self.read)] {
            if let Some(mode) = mode {
                print_mode(out, name, mode)?;
            }
        }
        let peak = self.server.peak_rss_bytes.map_or_else(|| "-".to_owned(), show_bytes);
        out.line(format_args!("\nserver  CPU {} s, peak memory {peak}", number(self.server.cpu_s, 2)))
    }
}

fn print_mode(out: Output, name: &str, mode: &ModeReport) -> std::io::Result<()> {
    out.line(format_args!(
        "\n{name:<6}  {:.0} ops/s, {}/s: {} of its floor",
        mode.ops_per_s,
        show_bytes(mode.bytes_per_s as u64),
        percent(mode.floor_ratio)
    ))?;
    out.line(format_args!(
        "        latency  p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, max {:.0} µs",
        mode.p50_us, mode.p99_us, mode.p999_us, mode.max_us
    ))?;
    out.line(format_args!("        server   {} CPU µs per operation", number(mode.server_cpu_us_per_op, 1)))?;
    for role in &mode.roles {
        out.line(format_args!("                 {} {}", number(role.cpu_us_per_op, 1), role.name))?;
    }
    if mode.commands_per_sync.is_some() || mode.appends_per_sync.is_some() {
        out.line(format_args!(
            "        syncs    log: {} commands, {} bytes each; volumes: {} needles, {} bytes each",
            number(mode.commands_per_sync, 1),
            number(mode.log_bytes_per_sync, 0),
            number(mode.appends_per_sync, 1),
            number(mode.bytes_per_sync, 0)
        ))?;
    }
    for floor in &mode.floors {
        out.line(format_args!(
            "        floor    {:<5} {} ops/s, {} CPU µs per operation: {}",
            floor.name,
            number(floor.ops_per_s, 0),
            number(floor.cpu_us_per_op, 1),
            percent(floor.ratio)
        ))?;
    }
    out.line(format_args!(
        "        pairs    {} of {} operations, {} repeated; steal {} % (median), {} % (worst)",
        mode.pairs,
        mode.ops,
        mode.pairs_repeated,
        number(mode.steal_percent_median, 1),
        number(mode.steal_percent_max, 1)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(work: f64, floors: &[f64]) -> Pair {
        Pair { work, floors: floors.to_vec(), steal_percent: 1.0 }
    }

    fn floor(name: &'static str) -> FloorSums {
        FloorSums { name, ops: 100, cpu_s: Some(0.002) }
    }

    fn report(pairs: &[Pair], floors: &[FloorSums]) -> ModeReport {
        let latency = Histogram::new_with_bounds(1_000, 1_000_000_000, 3).unwrap();
        let sums = Sums {
            ops: 1_000,
            seconds: 2.0,
            cpu_s: Some(0.05),
            roles: vec![Some(0.04), Some(0.01), None],
            log: PerSync::new(Some(900.0), None, Some(100.0)),
            volumes: PerSync::new(Some(1_000.0), Some(4_096_000.0), Some(125.0)),
        };
        mode_report(4096, pairs, 0, &sums, floors, &latency)
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_medians() {
        let pairs = [pair(10.0, &[100.0]), pair(50.0, &[60.0]), pair(30.0, &[50.0])];
        // Ratios 0.1, 0.83, 0.6; the medians would give 30 / 60.
        assert_eq!(report(&pairs, &[floor("http")]).floor_ratio, Some(0.6));
    }

    #[test]
    fn writes_are_held_against_the_slower_floor_of_the_whole_run() {
        // In the second pair the other floor was slower: noise must not choose.
        let pairs = [pair(5.0, &[50.0, 10.0]), pair(5.0, &[8.0, 10.0]), pair(5.0, &[50.0, 10.0])];
        let report = report(&pairs, &[floor("http"), floor("sync")]);
        assert_eq!(report.floor_ratio, Some(0.5));
        assert_eq!(report.floors[0].ratio, Some(0.1));
    }

    #[test]
    fn a_grpc_stream_stands_beside_the_floor() {
        let pairs = [pair(4.0, &[10.0, 5.0])];
        let against = |name| report(&pairs, &[floor("http"), floor(name)]);
        assert_eq!((against(GRPC).floor_ratio, against(GRPC).grpc_stream_ratio), (Some(0.4), Some(0.8)));
        assert_eq!((against(CALLS).floor_ratio, against(CALLS).grpc_calls_ratio), (Some(0.4), Some(0.8)));
    }

    #[test]
    fn sums_become_figures_for_each_operation_and_sync() {
        let report = report(&[pair(1.0, &[2.0])], &[floor("http")]);
        assert_eq!((report.ops_per_s, report.bytes_per_s), (500.0, 2_048_000.0));
        assert_eq!(report.server_cpu_us_per_op, Some(50.0));
        assert_eq!((report.commands_per_sync, report.appends_per_sync), (Some(9.0), Some(8.0)));
        assert_eq!(report.bytes_per_sync, Some(32_768.0));
        assert_eq!(report.floors[0].cpu_us_per_op, Some(20.0));
    }

    #[test]
    fn every_process_of_a_cluster_has_its_share() {
        let sums = Sums { ops: 1_000, roles: vec![Some(0.04), None], ..Sums::default() };
        let roles = role_reports(["gateway", "filer"].into_iter(), &sums);
        let shares: Vec<_> = roles.iter().map(|role| (role.name.as_str(), role.cpu_us_per_op)).collect();
        assert_eq!(shares, [("gateway", Some(40.0)), ("filer", None)]);
    }

    #[test]
    fn the_json_has_the_agreed_names() {
        let mode = report(&[pair(1.0, &[2.0])], &[floor("http")]);
        let whole = Report {
            write: Some(mode.clone()),
            read: Some(mode),
            server: ServerReport { cpu_s: Some(1.0), peak_rss_bytes: Some(5) },
            durability: "sync".into(),
            size_bytes: 4096,
            count: 1,
            concurrency: 1,
            client_threads: 1,
            cpus: 2,
        };
        let json = serde_json::to_value(&whole).unwrap();
        for mode in ["write", "read"] {
            for name in ["ops_per_s", "bytes_per_s", "p50_us", "p99_us", "p999_us", "max_us", "floor_ratio"] {
                assert!(json[mode][name].is_number(), "{mode}.{name}");
            }
        }
        assert_eq!(json["server"]["peak_rss_bytes"], 5);
        assert_eq!(json["server"]["cpu_s"], 1.0);
        assert_eq!(json["durability"], "sync");
    }
}
