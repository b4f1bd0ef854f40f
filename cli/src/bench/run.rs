//! The course of `hay bench`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hay_common::clock::SharedClock;
use hdrhistogram::Histogram;
use http::HeaderValue;
use serde_json::Value;

use super::content::Contents;
use super::floor::{Floor, FloorError};
use super::grpc::{CALL_BYTES_MAX, Exchange, GrpcLoad};
use super::http::{Ask, HttpLoad, Reads};
use super::load::{self, Extent, Load, LoadError, Slice};
use super::metrics::{Scrape, names};
use super::pairs::{Course, Verdict};
use super::procfs::MachineTime;
use super::report::{self, CALLS, FloorSums, GRPC, ModeReport, Pair, PerSync, Report, ServerReport, Sums};
use crate::api::Client;
use crate::config::Target;
use crate::flags::{BenchArgs, FloorArgs, FloorKind, Mode};
use crate::output::Output;
use crate::remote::RemotePath;
use crate::run::Context;
use crate::stop::{Exit, Stop};

const SLICE_MAX: Duration = Duration::from_secs(5);
/// A floor slice is never shorter, or starting it would be most of it.
const FLOOR_SLICE_MIN: Duration = Duration::from_millis(500);
/// Objects of this size and more are compared with a gRPC stream too.
const LARGE_BYTES: u64 = 8 << 20;

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Connect(..) | LoadError::Broken(_) => {
                Self { exit: Exit::Unreachable, code: "unreachable".into(), message: error.to_string() }
            }
            LoadError::Refused(401 | 403, _) => {
                Self { exit: Exit::Denied, code: "denied".into(), message: error.to_string() }
            }
            other => Self::local(other.to_string()),
        }
    }
}

impl From<FloorError> for Stop {
    fn from(error: FloorError) -> Self {
        Self::local(error.to_string())
    }
}

/// Plays a floor, in a process that `hay bench` started.
pub fn run_floor(args: FloorArgs, clock: SharedClock) -> Result<Exit, Stop> {
    super::floor::play(&args, clock.as_ref())?;
    Ok(Exit::Ok)
}

/// Measures.
pub fn run(args: BenchArgs, context: Context) -> Result<Exit, Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Stop::local(format!("threads can't be started: {error}")))?;
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = stop.clone();
    runtime.spawn(async move {
        // The slice in work ends, what was stored is removed, and only then the process ends.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.store(true, Ordering::Relaxed);
        }
    });
    let bench = Bench::new(&args, &context, &runtime, stop)?;
    // What was there before is nobody's to remove: only from here on is the directory this run's own.
    bench.make_directory()?;
    let outcome = bench.measure();
    if args.keep {
        context.out.note(format_args!("kept in {}", bench.directory.shown()));
    } else {
        bench.clean_up();
    }
    let report = outcome?;
    if context.out.json() {
        context.out.value(&report)?;
    } else {
        report.print(context.out)?;
    }
    Ok(Exit::Ok)
}

struct Bench<'a> {
    args: &'a BenchArgs,
    client: &'a Client,
    out: Output,
    clock: SharedClock,
    runtime: &'a tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
    address: SocketAddr,
    authorization: HeaderValue,
    contents: Contents,
    seed: u64,
    directory: RemotePath,
    floor_dir: PathBuf,
    cpus: usize,
    client_threads: usize,
}

/// One mode's measuring in progress.
struct Measuring {
    pairs: Vec<Pair>,
    sums: Sums,
    floors: Vec<FloorSums>,
    latency: Histogram<u64>,
}

impl<'a> Bench<'a> {
    fn new(
        args: &'a BenchArgs,
        context: &'a Context,
        runtime: &'a tokio::runtime::Runtime,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Stop> {
        if args.size == 0 {
            return Err(Stop::usage("objects of 0 bytes have no content to store"));
        }
        let target = context.client.target();
        let random = context.client.random();
        let seed = random.u64();
        let directory = match &args.prefix {
            Some(prefix) => RemotePath::parse(prefix)?.as_directory(),
            None => RemotePath::parse(&format!("hay-bench-{:08x}/", random.u32()))?,
        };
        if directory.is_root() {
            return Err(Stop::usage("--prefix can't be the root: it is removed at the end"));
        }
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let authorization = HeaderValue::try_from(format!("Bearer {}", target.token.reveal()))
            .map_err(|_| Stop::usage("the token holds characters that no token has"))?;
        Ok(Self {
            args,
            client: &context.client,
            out: context.out,
            clock: context.clock.clone(),
            runtime,
            stop,
            address: address_of(target)?,
            authorization,
            contents: Contents::new(seed, args.size),
            seed,
            directory,
            floor_dir: floor_dir(args, target, context.out),
            cpus,
            client_threads: args.client_threads.map_or((cpus / 2).max(1), NonZeroUsize::get),
        })
    }

    /// Makes the directory, which must be new: looking first and making it later could take another's for its own.
    fn make_directory(&self) -> Result<(), Stop> {
        use hay_common::error::ErrorCode::{IsDirectory, NotDirectory, PreconditionFailed};
        let made = self.runtime.block_on(self.client.make_new_directory(&self.directory));
        made.map_err(|error| match error.code() {
            Some(IsDirectory | NotDirectory | PreconditionFailed) => {
                Stop::usage(format!("{} is there already: name another --prefix", self.directory.shown()))
            }
            _ => Stop::from(error).about(&self.directory.shown()),
        })
    }

    fn measure(&self) -> Result<Report, Stop> {
        let durability = self.runtime.block_on(self.client.cluster()).ok().and_then(|c| find_durability(&c));
        let mut stored = 0;
        let (mut write, mut read) = (None, None);
        let mut cpu_s = None;
        if self.args.mode.contains(&Mode::Write) {
            let (report, sums) = self.measure_writes(&mut stored)?;
            cpu_s = add(cpu_s, sums.cpu_s);
            write = Some(report);
        }
        if self.args.mode.contains(&Mode::Read) {
            self.fill(&mut stored)?;
            let (report, sums) = self.measure_reads(stored)?;
            cpu_s = add(cpu_s, sums.cpu_s);
            read = Some(report);
        }
        let peak =
            self.scrapes().into_iter().next().flatten().and_then(|scrape| scrape.get(names::PEAK_RSS_BYTES));
        Ok(Report {
            write,
            read,
            server: ServerReport { cpu_s, peak_rss_bytes: peak.map(|bytes| bytes as u64) },
            durability: durability.unwrap_or_else(|| "unknown".to_owned()),
            size_bytes: self.args.size,
            count: self.args.count.get(),
            concurrency: self.args.concurrency.get(),
            client_threads: self.client_threads,
            cpus: self.cpus,
        })
    }

    fn load(&self, ask: Ask) -> HttpLoad {
        let prefix = self.directory.encoded();
        HttpLoad::new(self.address, Some(self.authorization.clone()), &prefix, self.contents.clone(), ask)
    }

    fn floor(&self, kind: FloorKind) -> Result<Floor, Stop> {
        let half = NonZeroUsize::new(self.cpus / 2).unwrap_or(NonZeroUsize::MIN);
        Ok(Floor::start(&FloorArgs {
            kind,
            size: self.args.size,
            seed: self.seed,
            threads: half,
            writers: self.args.concurrency,
            dir: Some(self.floor_dir.clone()),
        })?)
    }

    fn http_floor(&self, ask: Ask) -> Result<RunningFloor, Stop> {
        let floor = self.floor(FloorKind::Http)?;
        let prefix = self.directory.encoded();
        let load = HttpLoad::new(
            floor.address()?,
            Some(self.authorization_of_same_length()),
            &prefix,
            self.contents.clone(),
            ask,
        );
        Ok(RunningFloor::Http(floor, load))
    }

    /// The floor is sent a header of the same size, and not the token.
    fn authorization_of_same_length(&self) -> HeaderValue {
        let same = "x".repeat(self.authorization.len());
        HeaderValue::try_from(same).unwrap_or(HeaderValue::from_static("x"))
    }

    fn measure_writes(&self, stored: &mut u64) -> Result<(ModeReport, Sums), Stop> {
        let mut floors = vec![self.http_floor(Ask::Write)?, RunningFloor::Sync(self.floor(FloorKind::Sync)?)];
        floors.extend(self.grpc_floor(Exchange::WriteCalls, Exchange::WriteStream)?);
        self.run_pairs("write", &self.load(Ask::Write), &mut floors, stored)
    }

    fn measure_reads(&self, stored: u64) -> Result<(ModeReport, Sums), Stop> {
        let mut floors = vec![self.http_floor(Ask::Read(Reads::First))?];
        floors.extend(self.grpc_floor(Exchange::ReadCalls, Exchange::ReadStream)?);
        let work = self.load(Ask::Read(Reads::Stored { stored, seed: self.seed }));
        self.run_pairs("read", &work, &mut floors, &mut 0)
    }

    /// What the same costs that Haystore does inside, in bare gRPC; between the sizes it does neither.
    fn grpc_floor(&self, small: Exchange, large: Exchange) -> Result<Option<RunningFloor>, Stop> {
        let (name, exchange) = match self.args.size {
            ..=CALL_BYTES_MAX => (CALLS, small),
            LARGE_BYTES.. => (GRPC, large),
            _ => return Ok(None),
        };
        let floor = self.floor(FloorKind::Grpc)?;
        let load = GrpcLoad::new(floor.address()?, self.contents.clone(), exchange);
        Ok(Some(RunningFloor::Grpc(name, floor, load)))
    }

    /// Stores what reads need and is not there yet.
    fn fill(&self, stored: &mut u64) -> Result<(), Stop> {
        let missing = self.args.count.get().saturating_sub(*stored);
        if missing > 0 {
            self.out.note(format_args!("storing {missing} objects to read"));
            let slice = self.slice(&self.load(Ask::Write), *stored, missing, Duration::MAX)?;
            *stored += slice.ops;
        }
        Ok(())
    }

    fn run_pairs(
        &self,
        what: &str,
        work: &HttpLoad,
        floors: &mut [RunningFloor],
        from: &mut u64,
    ) -> Result<(ModeReport, Sums), Stop> {
        // Fewer operations than workers would leave some of them idle, and the floors none.
        let enough = u64::from(self.args.pairs) * self.args.concurrency.get() as u64;
        let mut course = Course::new(self.args.pairs, self.args.count.get().max(enough));
        let mut measuring = Measuring {
            pairs: Vec::new(),
            sums: Sums::default(),
            floors: floors.iter().map(|f| FloorSums { name: f.name(), ops: 0, cpu_s: None }).collect(),
            latency: load::latencies()?,
        };
        let slice_max = self.args.slice.min(SLICE_MAX);
        let mut last = slice_max;
        let mut floor_first = false;
        while let Some(quota) = course.next() {
            let before = MachineTime::now();
            // Which comes first changes, so that what drifts over the run favours neither.
            let mut rates =
                if floor_first { Some(self.run_floors(floors, last, &mut measuring)?) } else { None };
            let (slice, sums) = self.work_slice(work, *from, quota, slice_max)?;
            *from += slice.ops;
            last = slice.elapsed.clamp(FLOOR_SLICE_MIN.min(slice_max), slice_max);
            if rates.is_none() {
                rates = Some(self.run_floors(floors, last, &mut measuring)?);
            }
            floor_first = !floor_first;
            let steal_percent = match (MachineTime::now(), before) {
                (Some(now), Some(before)) => now.steal_percent_since(before),
                _ => 0.0,
            };
            let pair = Pair { work: slice.rate(), floors: rates.unwrap_or_default(), steal_percent };
            self.tell(what, &pair, &measuring.floors);
            if course.take(slice.ops, steal_percent) == Verdict::Repeat {
                self.out.note(format_args!("{what}: {steal_percent:.0} % steal, the pair is repeated"));
                continue;
            }
            measuring.keep(pair, &slice, sums)?;
        }
        let Measuring { pairs, sums, floors, latency } = measuring;
        let mut report =
            report::mode_report(self.args.size, &pairs, course.repeated(), &sums, &floors, &latency);
        if !self.args.role.is_empty() {
            let others = self.args.role.iter().map(|role| role.name.as_str());
            report.roles = report::role_reports(std::iter::once("gateway").chain(others), &sums);
        }
        Ok((report, sums))
    }

    fn tell(&self, what: &str, pair: &Pair, floors: &[FloorSums]) {
        let rates: Vec<String> = floors
            .iter()
            .zip(&pair.floors)
            .map(|(floor, rate)| format!("{} {rate:.0}", floor.name))
            .collect();
        self.out.note(format_args!(
            "{what}: {:.0} ops/s, floor {}, steal {:.1} %",
            pair.work,
            rates.join(", "),
            pair.steal_percent
        ));
    }

    /// A slice of work between two readings of the server's metrics.
    fn work_slice(
        &self,
        work: &HttpLoad,
        from: u64,
        quota: u64,
        time: Duration,
    ) -> Result<(Slice, Sums), Stop> {
        let before = self.scrapes();
        let slice = self.slice(work, from, quota, time)?;
        let mut sums = Sums { ops: slice.ops, seconds: slice.elapsed.as_secs_f64(), ..Sums::default() };
        for (before, after) in before.iter().zip(&self.scrapes()) {
            let (Some(before), Some(after)) = (before, after) else {
                sums.roles.push(None);
                continue;
            };
            let since = |name| after.since(before, name);
            sums.roles.push(since(names::CPU_SECONDS));
            sums.cpu_s = add(sums.cpu_s, since(names::CPU_SECONDS));
            let log = PerSync::new(since(names::COMMANDS), since(names::LOG_BYTES), since(names::LOG_SYNCS));
            sums.log = PerSync::add(sums.log, log);
            let volumes =
                PerSync::new(since(names::APPENDS), since(names::APPEND_BYTES), since(names::APPEND_SYNCS));
            sums.volumes = PerSync::add(sums.volumes, volumes);
        }
        Ok((slice, sums))
    }

    fn slice<L: Load>(&self, load: &L, from: u64, count_max: u64, time_max: Duration) -> Result<Slice, Stop> {
        let extent = Extent {
            from,
            count_max,
            time_max,
            concurrency: self.args.concurrency.get(),
            threads: self.client_threads,
        };
        let slice = load::run(load, extent, self.clock.as_ref(), &self.stop)?;
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stop { code: "interrupted".into(), ..Stop::local("interrupted") });
        }
        Ok(slice)
    }

    fn run_floors(
        &self,
        floors: &mut [RunningFloor],
        time: Duration,
        measuring: &mut Measuring,
    ) -> Result<Vec<f64>, Stop> {
        let mut rates = Vec::with_capacity(floors.len());
        for (floor, sums) in floors.iter_mut().zip(&mut measuring.floors) {
            let before = floor.process().cpu_seconds();
            let (ops, rate) = self.run_floor(floor, time)?;
            let used = floor.process().cpu_seconds().zip(before).map(|(after, before)| after - before);
            sums.ops += ops;
            sums.cpu_s = add(sums.cpu_s, used);
            rates.push(rate);
        }
        Ok(rates)
    }

    fn run_floor(&self, floor: &mut RunningFloor, time: Duration) -> Result<(u64, f64), Stop> {
        Ok(match floor {
            RunningFloor::Http(_, load) => {
                let slice = self.slice(load, 0, u64::MAX, time)?;
                (slice.ops, slice.rate())
            }
            RunningFloor::Grpc(_, _, load) => {
                let slice = self.slice(load, 0, u64::MAX, time)?;
                (slice.ops, slice.rate())
            }
            RunningFloor::Sync(floor) => {
                let slice = floor.run(time)?;
                (slice.ops, slice.ops as f64 * 1e9 / (slice.elapsed_ns as f64).max(1.0))
            }
        })
    }

    /// What the server tells, and each other process that was named.
    fn scrapes(&self) -> Vec<Option<Scrape>> {
        let parse = |text: Result<String, _>| text.ok().map(|text: String| Scrape::parse(&text));
        self.runtime.block_on(async {
            let mut scrapes = vec![parse(self.client.metrics().await)];
            for role in &self.args.role {
                scrapes.push(parse(self.client.metrics_at(role.operations).await));
            }
            scrapes
        })
    }

    fn clean_up(&self) {
        match self.runtime.block_on(self.client.remove(&self.directory, true)) {
            Ok(_) => {}
            // Nothing was stored.
            Err(error) if error.code() == Some(hay_common::error::ErrorCode::NotFound) => {}
            Err(error) => {
                let path = self.directory.shown();
                self.out
                    .note(format_args!("hay: {path} could not be removed: {error}; run `hay rm -r {path}`"));
            }
        }
    }
}

impl Measuring {
    fn keep(&mut self, pair: Pair, slice: &Slice, sums: Sums) -> Result<(), LoadError> {
        self.latency.add(&slice.latency).map_err(|error| LoadError::Start(error.to_string()))?;
        self.pairs.push(pair);
        self.sums.ops += sums.ops;
        self.sums.seconds += sums.seconds;
        self.sums.cpu_s = add(self.sums.cpu_s, sums.cpu_s);
        self.sums.roles.resize(sums.roles.len(), None);
        for (so_far, more) in self.sums.roles.iter_mut().zip(sums.roles) {
            *so_far = add(*so_far, more);
        }
        self.sums.log = PerSync::add(self.sums.log, sums.log);
        self.sums.volumes = PerSync::add(self.sums.volumes, sums.volumes);
        Ok(())
    }
}

/// A floor with what is asked of it.
enum RunningFloor {
    Http(Floor, HttpLoad),
    Grpc(&'static str, Floor, GrpcLoad),
    Sync(Floor),
}

impl RunningFloor {
    fn name(&self) -> &'static str {
        match self {
            Self::Http(..) => "http",
            Self::Grpc(name, ..) => name,
            Self::Sync(_) => "sync",
        }
    }

    fn process(&self) -> &Floor {
        match self {
            Self::Http(floor, _) | Self::Grpc(_, floor, _) | Self::Sync(floor) => floor,
        }
    }
}

fn add(so_far: Option<f64>, more: Option<f64>) -> Option<f64> {
    match (so_far, more) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

fn address_of(target: &Target) -> Result<SocketAddr, Stop> {
    let [server] = target.servers.as_slice() else {
        return Err(Stop::usage("bench measures one server: name one of them with --server"));
    };
    let unusable = || Stop::usage(format!("bench needs a server at http://HOST:PORT, not {server}"));
    let url = reqwest::Url::parse(server).map_err(|_| unusable())?;
    if url.scheme() != "http" {
        return Err(unusable());
    }
    let host = url.host_str().ok_or_else(unusable)?.trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().ok_or_else(unusable)?;
    let mut addresses = (host.as_str(), port)
        .to_socket_addrs()
        .map_err(|error| Stop { exit: Exit::Unreachable, ..Stop::local(format!("{host}: {error}")) })?;
    addresses.next().ok_or_else(unusable)
}

fn floor_dir(args: &BenchArgs, target: &Target, out: Output) -> PathBuf {
    if let Some(dir) = &args.floor_dir {
        return dir.clone();
    }
    let beside = target.credentials.as_deref().and_then(Path::parent);
    match beside.filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => dir.to_owned(),
        None => {
            out.note(
                "hay: the sync floor runs in the current directory; --floor-dir names the server's disk",
            );
            PathBuf::from(".")
        }
    }
}

/// Where the status says `durability`, however deep.
fn find_durability(value: &Value) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get("durability") {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            _ => fields.values().find_map(find_durability),
        },
        Value::Array(items) => items.iter().find_map(find_durability),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
