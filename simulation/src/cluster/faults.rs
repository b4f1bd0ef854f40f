//! What fails and when, from the seed. The fault model stands at the top of the crate.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use super::machines::Machine;
use super::{MASTERS, SERVERS, WRITERS, World};
use crate::disk::USUAL;

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    /// Loses everything.
    Cut,
    /// Loses what goes from the first to the second.
    OneWay,
    /// Holds everything back.
    Held,
    /// Takes long.
    Slow,
}

/// Machines by their place: masters, servers, writers.
type Place = usize;

const MACHINES: usize = MASTERS + SERVERS + WRITERS;
/// Those that are killed.
const MORTAL: usize = MASTERS + SERVERS;
const FIRST_SERVER: Place = MASTERS;
const FIRST_WRITER: Place = MASTERS + SERVERS;

/// A process that is told to stop is killed after this time.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// As fast as links usually are, as far as turmoil lets it be said of one.
const LINK: Duration = Duration::from_millis(5);

/// What kind of a day it is.
struct Mood {
    /// The greatest time between two faults, in ms.
    pause_ms: u64,
    /// Who is killed.
    mortal: std::ops::Range<Place>,
    /// Of the faults that may be either, so many in a hundred are of machines, the others of links.
    kills_percent: u32,
}

/// What fails now, and what will.
pub struct Faults {
    rng: StdRng,
    mood: Mood,
    next: Duration,
    /// Never the same two machines in both orders.
    links: BTreeMap<(Place, Place), (Bad, Duration)>,
    down: BTreeMap<Place, Duration>,
    /// Asked to end in order, and killed then.
    ending: BTreeMap<Place, Duration>,
    slow_disks: BTreeMap<Place, Duration>,
    pub kills: usize,
    pub cuts: usize,
}

fn machine(world: &World, place: Place) -> &Machine {
    match place {
        FIRST_WRITER.. => &world.writers[place - FIRST_WRITER],
        FIRST_SERVER.. => &world.servers[place - FIRST_SERVER],
        _ => &world.masters[place],
    }
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xfau64 << 40);
        let mood = Mood {
            pause_ms: [1_000, 3_000, 6_000][rng.random_range(0..3)],
            mortal: [0..MORTAL, 0..MORTAL, 0..FIRST_SERVER, FIRST_SERVER..MORTAL][rng.random_range(0..4)]
                .clone(),
            kills_percent: [10, 40, 70][rng.random_range(0..3)],
        };
        Self {
            rng,
            mood,
            // First there must be a cluster.
            next: Duration::from_secs(4),
            links: BTreeMap::new(),
            down: BTreeMap::new(),
            ending: BTreeMap::new(),
            slow_disks: BTreeMap::new(),
            kills: 0,
            cuts: 0,
        }
    }

    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    /// What is due at `now`.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        self.end_those_until(sim, world, now);
        if now < self.next {
            return;
        }
        self.next = now + self.ms(100..self.mood.pause_ms);
        let is_kill = self.rng.random_range(0..100) < self.mood.kills_percent;
        match self.rng.random_range(0..100) {
            0..3 => self.kill_all(sim, world, now),
            3..80 if is_kill => self.kill_one(sim, world, now),
            3..25 => self.cut_off(sim, world, now),
            25..80 => self.harm_a_link(sim, world, now),
            80..83 => {
                let until = now + self.ms(20..3_000);
                let place = self.rng.random_range(FIRST_WRITER..MACHINES);
                self.kill(sim, world, place, false, until);
            }
            83..87 => self.end_one(world, now),
            87..92 => {
                let (place, off) = (self.rng.random_range(0..MACHINES), self.rng.random_range(-1..=1));
                let name = &machine(world, place).name;
                world.trace.note(format_args!("the clock of {name} is off by {off} h"));
                // Two may differ by less than two hours.
                machine(world, place).clock.be_off_by_ms(off * 3_500_000);
            }
            _ => {
                let place = self.rng.random_range(0..MORTAL);
                let (slowness, until) = (self.ms(20..800), now + self.ms(1_000..8_000));
                world
                    .trace
                    .note(format_args!("the disk of {} takes {slowness:?}", machine(world, place).name));
                machine(world, place).disk.slow_down(slowness);
                self.slow_disks.insert(place, until);
            }
        }
    }

    /// Everything is well from now on, but that those who were killed have only just started.
    pub fn heal(&mut self, sim: &mut Sim<'_>, world: &World) {
        self.end_those_until(sim, world, Duration::MAX);
        (0..MACHINES).for_each(|place| machine(world, place).clock.be_off_by_ms(0));
    }

    fn end_one(&mut self, world: &World, now: Duration) {
        let place = self.rng.random_range(self.mood.mortal.clone());
        if self.down.contains_key(&place) || self.ending.contains_key(&place) {
            return;
        }
        world.trace.note(format_args!("{} is told to stop", machine(world, place).name));
        machine(world, place).stop.notify_one();
        self.ending.insert(place, now + STOP_PATIENCE);
    }

    fn end_those_until(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let is_over = |place: &Place, until: &Duration| {
            *until <= now || machine(world, *place).has_stopped.load(Ordering::Relaxed)
        };
        let ended: Vec<_> =
            self.ending.iter().filter(|(place, until)| is_over(place, until)).map(|(p, _)| *p).collect();
        for place in ended {
            self.ending.remove(&place);
            // What ended in order has synced all: it may lose its power too.
            let until = now.saturating_add(self.ms(20..2_000));
            self.kill(sim, world, place, true, until);
        }
        let up: Vec<_> =
            self.down.iter().filter(|(_, until)| **until <= now).map(|(place, _)| *place).collect();
        for place in up {
            self.down.remove(&place);
            let name = &machine(world, place).name;
            world.trace.note(format_args!("{name} starts"));
            sim.bounce(name.as_str());
        }
        let over: Vec<_> = self
            .links
            .iter()
            .filter(|(_, (_, until))| *until <= now)
            .map(|(link, (bad, _))| (*link, *bad))
            .collect();
        for ((from, to), bad) in over {
            self.links.remove(&(from, to));
            let (a, b) = (machine(world, from).name.as_str(), machine(world, to).name.as_str());
            world.trace.note(format_args!("{a} and {b}: no longer {bad:?}"));
            match bad {
                Bad::Cut => sim.repair(a, b),
                Bad::OneWay => sim.repair_oneway(a, b),
                Bad::Held => sim.release(a, b),
                Bad::Slow => sim.set_link_latency(a, b, LINK),
            }
        }
        let fast: Vec<_> =
            self.slow_disks.iter().filter(|(_, until)| **until <= now).map(|(p, _)| *p).collect();
        for place in fast {
            self.slow_disks.remove(&place);
            machine(world, place).disk.slow_down(USUAL);
        }
    }

    fn kill(&mut self, sim: &mut Sim<'_>, world: &World, place: Place, power: bool, until: Duration) {
        if self.down.contains_key(&place) {
            return;
        }
        self.ending.remove(&place);
        let machine = machine(world, place);
        let how = if power { "loses power" } else { "is killed" };
        world.trace.note(format_args!("{} {how}", machine.name));
        machine.group.lock().take();
        // First the disk, so that nothing done while the process's memory is freed is kept.
        if power {
            machine.disk.lose_power()
        } else {
            machine.disk.switch_off()
        }
        sim.crash(machine.name.as_str());
        self.down.insert(place, until);
        self.kills += 1;
    }

    fn kill_one(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let (place, power) = (self.rng.random_range(self.mood.mortal.clone()), self.rng.random_bool(0.5));
        let until = now + if self.rng.random_bool(0.5) { self.ms(20..500) } else { self.ms(500..14_000) };
        self.kill(sim, world, place, power, until);
    }

    fn kill_all(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        for place in self.mood.mortal.clone() {
            let until = now + self.ms(20..3_000);
            self.kill(sim, world, place, true, until);
        }
    }

    fn harm(&mut self, sim: &mut Sim<'_>, world: &World, from: Place, to: Place, bad: Bad, until: Duration) {
        if from == to || self.links.contains_key(&(from, to)) || self.links.contains_key(&(to, from)) {
            return;
        }
        let (a, b) = (machine(world, from).name.as_str(), machine(world, to).name.as_str());
        world.trace.note(format_args!("{a} and {b}: {bad:?}"));
        match bad {
            Bad::Cut => sim.partition(a, b),
            Bad::OneWay => sim.partition_oneway(a, b),
            Bad::Held => sim.hold(a, b),
            Bad::Slow => {
                let latency = self.ms(50..900);
                sim.set_link_latency(a, b, latency);
            }
        }
        self.links.insert((from, to), (bad, until));
        self.cuts += 1;
    }

    fn harm_a_link(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let (from, to) = (self.rng.random_range(0..MACHINES), self.rng.random_range(0..MACHINES));
        let bad = [Bad::Cut, Bad::OneWay, Bad::Held, Bad::Slow][self.rng.random_range(0..4)];
        let until = now + if bad == Bad::Held { self.ms(200..6_000) } else { self.ms(500..20_000) };
        self.harm(sim, world, from, to, bad, until);
    }

    /// One server is cut off from all masters, one way or both, and not from those who write; or a master from the others.
    fn cut_off(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let place = self.rng.random_range(0..MORTAL);
        let until = now + self.ms(1_000..25_000);
        let bad = if self.rng.random_bool(0.6) { Bad::Cut } else { Bad::OneWay };
        let is_mute = self.rng.random_bool(0.5);
        for other in 0..MASTERS {
            let (from, to) = if is_mute { (place, other) } else { (other, place) };
            self.harm(sim, world, from, to, bad, until);
        }
    }
}
