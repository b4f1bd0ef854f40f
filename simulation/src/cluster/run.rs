//! One run: a cluster from a seed, on a thread of its own.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use turmoil::{Builder, Sim};

use super::faults::{Counts, Faults};
use super::history::History;
use super::sabotage::Sabotage;
use super::{Stage, World, judge, machines, writers};
use crate::clock::EPOCH_MS;
use crate::trace::Sum;
use crate::{entropy, net};

/// Everything moves by so much at a time; a message takes at least so long.
const TICK: Duration = Duration::from_millis(10);
/// So long everything fails.
const FAULTS: Duration = Duration::from_secs(40);
/// The judge has come to an end so long after it.
const JUDGED: Duration = Duration::from_secs(400);

thread_local! {
    /// Something panicked on this thread: tokio keeps that to itself.
    static PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Of all events, and of what is on all disks in the end.
    pub digest: Sum,
    pub events: u64,
    pub acknowledged: usize,
    pub reads: usize,
    pub sealed: usize,
    pub repairs: usize,
    pub fenced: usize,
    pub compared: usize,
    pub leaderships: usize,
    pub counts: Counts,
    pub simulated: Duration,
    /// What should never have happened.
    pub violations: Vec<String>,
}

/// Runs `seed` on a fresh thread, which has nothing in its memory that does not follow from it. Two runs give the same only
/// in processes of their own: libraries count things in statics.
pub fn run(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.set(true);
        before(info);
    }));
    let run = move || {
        entropy::seed(seed);
        simulate(seed, sabotage)
    };
    let thread = std::thread::Builder::new().name(format!("seed-{seed}")).spawn(run).unwrap();
    thread.join().unwrap()
}

fn simulate(seed: u64, sabotage: Option<Sabotage>) -> Outcome {
    let _log = std::env::var("HAY_LOG").ok().map(|filter| {
        let filter: Targets = filter.parse().expect("HAY_LOG, as in hay_master=debug,info");
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time();
        let log = tracing_subscriber::registry().with(filter).with(lines.with_writer(std::io::stderr));
        tracing::subscriber::set_default(log)
    });
    let world = World::new(seed, sabotage);
    net::note_to(Some(world.trace.clone()));
    let mut sim = build(&world);
    let mut faults = Faults::new(seed, &world);
    while world.stage() != Stage::Done {
        let now = sim.elapsed();
        world.time.set(now);
        entropy::tick(now);
        match world.stage() {
            Stage::Faults if now < FAULTS => faults.step(&mut sim, &world, now),
            Stage::Faults => {
                faults.heal(&mut sim, &world, now);
                world.enter(Stage::Healed);
            }
            _ => faults.step_in_calm(&mut sim, &world, now),
        }
        if let Err(error) = sim.step() {
            world.history.violation(format_args!("a process ended: {error:?}"));
            break;
        }
        faults.bury(&mut sim, &world, now);
        who_leads(&world);
        if PANICKED.get() {
            break;
        }
        if now > FAULTS + JUDGED {
            world.history.violation(format_args!("the judge came to no end"));
            break;
        }
    }
    let simulated = sim.elapsed();
    world.machines().for_each(|machine| machine.forget());
    drop(sim);
    if PANICKED.get() {
        world.history.violation(format_args!("something panicked"));
    }
    net::note_to(None);
    let (mut digest, events) = world.trace.digest();
    world.machines().for_each(|machine| machine.disk.sum(&mut digest));
    let History { reads, sealed, repairs, fenced, compared, .. } = &world.history;
    Outcome {
        digest,
        events,
        acknowledged: world.history.acknowledged().len(),
        reads: reads.load(Ordering::Relaxed),
        sealed: sealed.load(Ordering::Relaxed),
        repairs: repairs.load(Ordering::Relaxed),
        fenced: fenced.load(Ordering::Relaxed),
        compared: compared.load(Ordering::Relaxed),
        leaderships: world.history.leaderships(),
        counts: faults.counts,
        simulated,
        violations: world.history.violations(),
    }
}

fn build(world: &Arc<World>) -> Sim<'static> {
    let mut sim = Builder::new()
        .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS))
        .rng_seed(world.seed)
        .tick_duration(TICK)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(15))
        .simulation_duration(Duration::MAX)
        .tcp_capacity(1024)
        .enable_random_order()
        .build();
    match world.sabotage {
        Some(Sabotage::LyingServers) => world.servers.iter().for_each(|server| server.disk.lie()),
        Some(Sabotage::LyingMasters) => world.masters.iter().for_each(|master| master.disk.lie()),
        Some(Sabotage::Yielding | Sabotage::Hasty) | None => {}
    }
    for (n, machine) in world.masters.iter().enumerate() {
        let world = world.clone();
        sim.host(machine.name.as_str(), move || machines::master(world.clone(), n));
    }
    for (n, machine) in world.servers.iter().enumerate() {
        let world = world.clone();
        sim.host(machine.name.as_str(), move || machines::volume_server(world.clone(), n));
    }
    for (n, machine) in world.writers.iter().enumerate() {
        let world = world.clone();
        sim.host(machine.name.as_str(), move || writers::writer(world.clone(), n));
    }
    let own = world.clone();
    sim.host(world.judge.name.as_str(), move || judge::judge(own.clone()));
    for machine in world.machines() {
        net::silent_once_dead(sim.lookup(machine.name.as_str()), machine.disk.clone());
    }
    sim
}

/// In one term one master leads.
fn who_leads(world: &World) {
    for machine in &world.masters {
        let term = machine.master.lock().as_ref().and_then(|master| *master.group().leading().borrow());
        if let Some(term) = term {
            world.history.leads(term, &machine.name);
        }
    }
}
