//! Many seeds, each in a process of its own; one of them twice; and rules broken on purpose.
//!
//! In the environment: `HAY_SEED=N` with the test `one_seed` repeats seed `N`, `HAY_SABOTAGE=NAME` breaks a rule in it,
//! `HAY_TRACE=FILE` writes all events down, `HAY_LOG=debug` logs what the processes say. `HAY_SOAK=1` runs ten thousand
//! seeds, `HAY_SEEDS=N` so many, from `HAY_FIRST_SEED` on.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::cluster::faults::Counts;
use crate::cluster::run::run;
use crate::cluster::sabotage::Sabotage;

/// As many as fit into a minute on two cores, or little more.
const SEEDS: u64 = 80;
const SEEDS_OF_A_SOAK: u64 = 10_000;
/// Seeds within which a broken rule must be found.
const SEEDS_TO_FIND: u64 = 12;
/// Each seed of which this is a factor is run twice, and must do the same.
const TWICE_EVERY: u64 = 100;
/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(240);

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
}

/// What a process says of its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The run of one seed, by itself. The other tests start it in processes of its own.
#[test]
fn one_seed() {
    let seed = number("HAY_SEED").unwrap_or(1);
    let sabotage = std::env::var("HAY_SABOTAGE").ok().map(|name| Sabotage::named(&name));
    let outcome = run(seed, sabotage);
    let Counts { kills, torn, cuts, wiped, full, stopped } = outcome.counts;
    println!(
        "simulated digest={} events={} acknowledged={} reads={} compared={} sealed={} repairs={} fenced={} kills={kills} \
         torn={torn} cuts={cuts} wiped={wiped} full={full} stopped={stopped} leaderships={} ms={}",
        outcome.digest,
        outcome.events,
        outcome.acknowledged,
        outcome.reads,
        outcome.compared,
        outcome.sealed,
        outcome.repairs,
        outcome.fenced,
        outcome.leaderships,
        outcome.simulated.as_millis(),
    );
    assert!(outcome.violations.is_empty(), "seed {seed}:\n  {}", outcome.violations.join("\n  "));
}

fn repeat(seed: u64, sabotage: Option<&str>) -> String {
    let sabotage = sabotage.map(|name| format!("HAY_SABOTAGE={name} ")).unwrap_or_default();
    format!("HAY_SEED={seed} {sabotage}cargo test --release -p hay-simulation one_seed -- --nocapture")
}

fn start(seed: u64, sabotage: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tests::one_seed", "--nocapture", "--test-threads=1"]);
    command.env("HAY_SEED", seed.to_string()).env_remove("HAY_TRACE").env_remove("HAY_SABOTAGE");
    if let Some(name) = sabotage {
        command.env("HAY_SABOTAGE", name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Why a process did not say that all is well.
struct Failed {
    /// What it said all the same.
    said: Said,
    /// All that it wrote.
    text: String,
}

/// Reads what a process writes, on a thread of its own, and says when it has come to an end.
fn reading(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (says, all) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        from.read_to_end(&mut text).unwrap();
        let _ = says.send(String::from_utf8_lossy(&text).into_owned());
    });
    all
}

/// Runs a seed in a process of its own.
fn in_a_process(seed: u64, sabotage: Option<&str>) -> Result<Said, Failed> {
    let mut child = start(seed, sabotage);
    let (out, err) = (reading(child.stdout.take().unwrap()), reading(child.stderr.take().unwrap()));
    let Ok(text) = out.recv_timeout(PATIENCE) else {
        child.kill().unwrap();
        child.wait().unwrap();
        let text = format!("it had not come to an end after {PATIENCE:?}");
        return Err(Failed { said: Said::default(), text });
    };
    let status = child.wait().unwrap();
    let line = text.lines().find_map(|line| line.split_once("simulated digest="));
    let line = line.map(|(_, rest)| format!("digest={rest}")).unwrap_or_default();
    let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
    let said = Said(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    match status.success() && !said.0.is_empty() {
        true => Ok(said),
        false => Err(Failed { said, text: format!("{text}{}", err.recv().unwrap()) }),
    }
}

/// As many at once as there are cores.
fn each(seeds: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    work(seed);
                }
            });
        }
    });
}

/// What a seed shows that did not fail: enough must have happened in it.
fn is_worth_something(said: &Said) -> Result<(), String> {
    let least = [("acknowledged", 20), ("reads", 10), ("leaderships", 1), ("kills", 6), ("compared", 20)];
    match least.into_iter().find(|(name, least)| said.number(name) < *least) {
        None => Ok(()),
        Some((name, least)) => Err(format!("{name} is less than {least}: {said:?}")),
    }
}

/// A seed, and of some whether it does the same again.
fn judged(seed: u64) -> Result<Said, String> {
    let again = || in_a_process(seed, None).unwrap_or_else(|failed| failed.said);
    match in_a_process(seed, None) {
        Ok(said) if seed.is_multiple_of(TWICE_EVERY) && again() != said => {
            Err(format!("it does something else each time: {said:?}"))
        }
        Ok(said) => is_worth_something(&said).map(|()| said),
        Err(Failed { said, text }) => {
            let is_alike = again() == said;
            Err(format!("{text}\nonce more it does the same: {is_alike}"))
        }
    }
}

#[test]
fn whatever_fails_what_was_acknowledged_is_there_and_writing_goes_on() {
    let first = number("HAY_FIRST_SEED").unwrap_or(1);
    let is_soak = std::env::var_os("HAY_SOAK").is_some();
    let count = number("HAY_SEEDS").unwrap_or(if is_soak { SEEDS_OF_A_SOAK } else { SEEDS });
    let (failed, total) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<String, u64>::new()));
    each(first..first + count, |seed| match judged(seed) {
        Ok(said) => {
            let mut total = total.lock().unwrap();
            for name in said.0.keys().filter(|name| *name != "digest") {
                *total.entry(name.clone()).or_default() += said.number(name);
            }
        }
        Err(text) => {
            eprintln!("seed {seed} failed: repeat it with\n    {}\n{text}", repeat(seed, None));
            failed.lock().unwrap().push(seed);
        }
    });
    let (failed, total) = (failed.into_inner().unwrap(), total.into_inner().unwrap());
    println!("{count} seeds: {total:?}");
    assert!(
        failed.is_empty(),
        "seeds {failed:?} failed; the first is repeated by\n    {}",
        repeat(failed[0], None)
    );
    // Runs in which nothing happens show nothing. A few alone may lack what is not in every seed.
    if count >= SEEDS {
        let least = [
            ("acknowledged", 100),
            ("reads", 50),
            ("compared", 50),
            ("sealed", 1),
            ("leaderships", 1),
            ("kills", 8),
            ("cuts", 2),
        ];
        for (name, each) in least {
            assert!(total[name] > each * count, "{name}: {total:?}");
        }
        for name in ["fenced", "repairs", "torn", "wiped", "full", "stopped"] {
            assert!(total[name] > count / 20, "{name}: {total:?}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 4] {
        let said = || in_a_process(seed, None).unwrap_or_else(|failed| panic!("{}", failed.text));
        let (first, second) = (said(), said());
        assert!(first.number("events") > 10_000, "{first:?}");
        assert_eq!(
            first,
            second,
            "seed {seed} twice; the events of each are written down with HAY_TRACE=FILE by\n    {}",
            repeat(seed, None)
        );
    }
    let digest = |seed| in_a_process(seed, None).map(|said| said.0["digest"].clone()).ok();
    assert_ne!(digest(3), digest(4));
}

/// Some seed finds what is broken, and says so in one of these `words`.
#[track_caller]
fn finds(name: &str, words: &[&str]) {
    let is_it = |text: &str| words.iter().any(|word| text.contains(word));
    let found = (1..=SEEDS_TO_FIND)
        .find(|seed| in_a_process(*seed, Some(name)).is_err_and(|failed| is_it(&failed.text)));
    let Some(seed) = found else {
        panic!("{SEEDS_TO_FIND} seeds find nothing wrong; try\n    {}", repeat(1, Some(name)));
    };
    println!("{name}: found by seed {seed}");
}

/// What the judge says of needles that are not where they must be.
const GONE: &str = "holds no such needle";

#[test]
fn a_replica_that_says_yes_to_what_it_has_refused_is_found() {
    finds("yielding", &[GONE]);
}

#[test]
fn an_acknowledgement_before_the_replica_has_stored_it_is_found() {
    finds("hasty", &[GONE]);
}

#[test]
fn a_volume_server_that_says_synced_and_is_not_is_found() {
    finds("lying-servers", &[GONE, "is damaged", "were not on its disk"]);
}

#[test]
fn a_master_that_says_synced_and_is_not_is_found() {
    // The log itself knows what was durable, where some of it is left, and is not opened.
    finds(
        "lying-masters",
        &["bytes were durable there", "is not in the map", "both lead", "was leased in epoch"],
    );
}
