//! What fails and when, from the seed. The fault model stands at the top of the crate.

mod links;
mod mood;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use super::machines::Machine;
use super::{MASTERS, Stage, World};
use crate::disk::{Death, USUAL};
use links::{Bad, Links};
use mood::Mood;

/// Machines by their place: masters, servers, writers.
type Place = usize;

const FIRST_SERVER: Place = MASTERS;

/// A process that is told to stop is killed after this time.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// While nothing else is wrong it must have stopped within this one.
const CALM_STOP_PATIENCE: Duration = Duration::from_secs(30);
/// So long after the end of all faults one process is told to stop.
const CALM_STOP_AFTER: Duration = Duration::from_secs(3);
/// A process that is to die in the middle of a change of its disk, and makes none, is killed after this time.
const DEATH_PATIENCE: Duration = Duration::from_secs(4);

/// A process that is to die.
#[derive(Clone, Copy)]
struct Doom {
    death: Death,
    /// At the latest.
    by: Duration,
    /// It starts again after so long.
    away: Duration,
    /// All others lose their power with it.
    with_all: bool,
}

/// How often what has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes that were killed or lost their power.
    pub kills: usize,
    /// Those of them that did in the middle of a change of their disk.
    pub torn: usize,
    /// Links that went bad, and machines that were cut off.
    pub cuts: usize,
    /// Disks that were lost.
    pub wiped: usize,
    /// Disks that were full for a while.
    pub full: usize,
    /// Processes that ended in order while nothing else was wrong.
    pub stopped: usize,
}

/// What fails now, and what will.
pub struct Faults {
    rng: StdRng,
    mood: Mood,
    next: Duration,
    links: Links,
    dooms: BTreeMap<Place, Doom>,
    down: BTreeMap<Place, Duration>,
    /// Asked to end in order, and killed then.
    ending: BTreeMap<Place, Duration>,
    bad_disks: BTreeMap<Place, Duration>,
    /// When a process is told to stop while nothing else is wrong.
    calm_stop: Option<Duration>,
    /// All have lost their power at once in the end.
    was_dark: bool,
    pub counts: Counts,
}

fn machine(world: &World, place: Place) -> &Machine {
    world.machines().nth(place).unwrap()
}

impl Faults {
    pub fn new(seed: u64, world: &World) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xfau64 << 40);
        let mood = Mood::new(&mut rng, world);
        Self {
            rng,
            mood,
            // First there must be a cluster.
            next: Duration::from_secs(4),
            links: Links::default(),
            dooms: BTreeMap::new(),
            down: BTreeMap::new(),
            ending: BTreeMap::new(),
            bad_disks: BTreeMap::new(),
            calm_stop: None,
            was_dark: false,
            counts: Counts::default(),
        }
    }

    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    /// What is due at `now`, while everything fails.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        self.end_those_until(sim, world, now);
        if now < self.next {
            return;
        }
        if self.mood.is_only_cut_off {
            return self.cut_off_alone(sim, world, now);
        }
        self.next = now + self.ms(100..self.mood.pause_ms);
        let is_kill = self.rng.random_range(0..100) < self.mood.kills_percent;
        match self.rng.random_range(0..100) {
            0..3 => self.kill_all(world, now),
            3..80 if is_kill => self.kill_one(world, now),
            3..25 => self.cut_off(sim, world, now),
            25..80 => self.harm_a_link(sim, world, now),
            80..83 => {
                let until = now + self.ms(20..3_000);
                let place = self.rng.random_range(world.mortal()..world.machines().count());
                self.kill(sim, world, place, Death::Killed, until);
            }
            83..87 => self.end_one(world, now),
            87..91 => {
                let place = self.rng.random_range(0..world.machines().count());
                let off = self.rng.random_range(-1..=1);
                let name = &machine(world, place).name;
                world.trace.note(format_args!("the clock of {name} is off by {off} h"));
                // Two may differ by less than two hours.
                machine(world, place).clock.be_off_by_ms(off * 3_500_000);
            }
            91..94 if self.mood.fills_up => self.fill_up(world, now),
            94..97 if self.mood.wipes => self.wipe_one(sim, world, now),
            _ => {
                let place = self.rng.random_range(0..world.mortal());
                let (slowness, until) = (self.ms(20..800), now + self.ms(1_000..8_000));
                let name = &machine(world, place).name;
                world.trace.note(format_args!("the disk of {name} takes {slowness:?}"));
                machine(world, place).disk.slow_down(slowness);
                self.bad_disks.insert(place, until);
            }
        }
    }

    /// Everything is well from now on, but that those who were killed have only just started.
    pub fn heal(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let doomed: Vec<Place> = self.dooms.keys().copied().collect();
        doomed.into_iter().for_each(|place| self.carry_out(sim, world, place, now));
        self.end_those_until(sim, world, Duration::MAX);
        (0..world.machines().count()).for_each(|place| machine(world, place).clock.be_off_by_ms(0));
        self.calm_stop = Some(now + CALM_STOP_AFTER);
    }

    /// What is due once nothing fails any more: a process stops in order, which nothing keeps it from, and in the dark
    /// all machines lose their power at once.
    pub fn step_in_calm(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        if let Some((place, _)) = self.ending.iter().find(|(_, until)| **until <= now) {
            let name = &machine(world, *place).name;
            world.history.violation(format_args!("{name} has not stopped within {CALM_STOP_PATIENCE:?}"));
        }
        self.counts.stopped += self.ending.keys().filter(|place| has_stopped(world, **place)).count();
        self.end_those_until(sim, world, now);
        if self.calm_stop.is_some_and(|at| at <= now) {
            let place = self.rng.random_range(0..world.mortal());
            // One that starts still would not hear it.
            if machine(world, place).serves() {
                self.calm_stop = None;
                self.tell_to_stop(world, place, now + CALM_STOP_PATIENCE);
            }
        }
        let is_busy = self.calm_stop.is_some() || !self.ending.is_empty() || !self.down.is_empty();
        if world.stage() != Stage::Dark || is_busy {
            return;
        }
        if std::mem::replace(&mut self.was_dark, true) {
            return world.enter(Stage::Risen);
        }
        for place in 0..world.mortal() {
            let until = now + self.ms(20..1_000);
            self.kill(sim, world, place, Death::PowerLost, until);
        }
    }

    /// Takes those processes away that have died in this turn, or should have.
    pub fn bury(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let is_due = |place: &Place, doom: &Doom| machine(world, *place).disk.has_died() || doom.by <= now;
        let due: Vec<Place> =
            self.dooms.iter().filter(|(place, doom)| is_due(place, doom)).map(|(place, _)| *place).collect();
        due.into_iter().for_each(|place| self.carry_out(sim, world, place, now));
    }

    fn carry_out(&mut self, sim: &mut Sim<'_>, world: &World, place: Place, now: Duration) {
        let Some(doom) = self.dooms.remove(&place) else { return };
        if machine(world, place).disk.has_died() && !self.down.contains_key(&place) {
            world.trace.note(format_args!("{} dies in the middle of a change", machine(world, place).name));
            self.counts.torn += 1;
        }
        self.kill(sim, world, place, doom.death, now + doom.away);
        if doom.with_all {
            for other in self.mood.mortal.clone() {
                let until = now + self.ms(20..3_000);
                self.kill(sim, world, other, Death::PowerLost, until);
            }
        }
    }

    fn tell_to_stop(&mut self, world: &World, place: Place, until: Duration) {
        world.trace.note(format_args!("{} is told to stop", machine(world, place).name));
        machine(world, place).tell_to_stop();
        self.ending.insert(place, until);
    }

    fn end_one(&mut self, world: &World, now: Duration) {
        let place = self.rng.random_range(self.mood.mortal.clone());
        if !self.down.contains_key(&place) && !self.ending.contains_key(&place) {
            self.tell_to_stop(world, place, now + STOP_PATIENCE);
        }
    }

    fn end_those_until(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let is_over = |place: &Place, until: &Duration| *until <= now || has_stopped(world, *place);
        let ended: Vec<_> =
            self.ending.iter().filter(|(place, until)| is_over(place, until)).map(|(p, _)| *p).collect();
        for place in ended {
            self.ending.remove(&place);
            // What ended in order has synced all: it may lose its power too.
            let until = now.saturating_add(self.ms(20..2_000));
            self.kill(sim, world, place, Death::PowerLost, until);
        }
        let up: Vec<_> =
            self.down.iter().filter(|(_, until)| **until <= now).map(|(place, _)| *place).collect();
        for place in up {
            self.down.remove(&place);
            self.start(sim, world, place, now);
        }
        self.links.mend_those_until(sim, world, now);
        let well: Vec<_> =
            self.bad_disks.iter().filter(|(_, until)| **until <= now).map(|(p, _)| *p).collect();
        for place in well {
            self.bad_disks.remove(&place);
            machine(world, place).disk.slow_down(USUAL);
            machine(world, place).disk.fill_up(false);
        }
    }

    fn start(&mut self, sim: &mut Sim<'_>, world: &World, place: Place, now: Duration) {
        let machine = machine(world, place);
        world.trace.note(format_args!("{} starts", machine.name));
        // With a full disk a volume that has something to settle is out of use until the start after this one.
        machine.disk.fill_up(false);
        machine.disk.plug_in();
        sim.bounce(machine.name.as_str());
        self.links.speak_again(sim, world, place);
        // Some die again while they recover, or soon after it.
        if world.stage() == Stage::Faults && now < Duration::MAX && self.rng.random_bool(0.2) {
            self.doom(world, place, now, false);
        }
    }

    /// Lets a process die in the middle of one of its next changes.
    fn doom(&mut self, world: &World, place: Place, now: Duration, with_all: bool) {
        let is_short = self.rng.random_bool(0.5);
        let away = if is_short { self.ms(20..500) } else { self.ms(500..14_000) };
        let death = if with_all || self.rng.random_bool(0.6) { Death::PowerLost } else { Death::Killed };
        // Masters change theirs seldom.
        let changes = self.rng.random_range(1..if place < FIRST_SERVER { 6 } else { 30 });
        if place < world.mortal() && !self.down.contains_key(&place) && !self.dooms.contains_key(&place) {
            // Its disk is used from the process's first turn on.
            self.dooms.insert(place, Doom { death, by: now + DEATH_PATIENCE, away, with_all });
            machine(world, place).disk.die_in(changes, death);
        }
    }

    fn kill(&mut self, sim: &mut Sim<'_>, world: &World, place: Place, death: Death, until: Duration) {
        self.dooms.remove(&place);
        if self.down.contains_key(&place) {
            return;
        }
        self.ending.remove(&place);
        let machine = machine(world, place);
        world.trace.note(format_args!("{}: {death:?}", machine.name));
        machine.forget();
        // First the disk, so that nothing done while the process's memory is freed is kept.
        machine.disk.end(death);
        match death {
            Death::PowerLost => self.links.crash_silently(sim, world, place),
            Death::Killed => sim.crash(machine.name.as_str()),
        }
        self.down.insert(place, until);
        self.counts.kills += 1;
    }

    fn kill_one(&mut self, world: &World, now: Duration) {
        let place = self.rng.random_range(self.mood.mortal.clone());
        self.doom(world, place, now, false);
    }

    fn kill_all(&mut self, world: &World, now: Duration) {
        let place = self.rng.random_range(self.mood.mortal.clone());
        self.doom(world, place, now, true);
    }

    /// One server loses its disk, once in a run: it comes back with an empty one.
    fn wipe_one(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let place = self.rng.random_range(FIRST_SERVER..world.mortal());
        let node = machine(world, place).server.lock().as_ref().map(|server| server.node());
        if let Some(node) = node.filter(|_| world.wiped.lock().is_none()) {
            let until = now + self.ms(20..8_000);
            self.kill(sim, world, place, Death::PowerLost, until);
            world.trace.note(format_args!("{} has lost its disk", machine(world, place).name));
            machine(world, place).disk.wipe();
            *world.wiped.lock() = Some(node);
            self.counts.wiped += 1;
        }
    }

    fn fill_up(&mut self, world: &World, now: Duration) {
        let place = self.rng.random_range(FIRST_SERVER..world.mortal());
        let until = now + self.ms(1_000..15_000);
        if !self.down.contains_key(&place) {
            world.trace.note(format_args!("the disk of {} is full", machine(world, place).name));
            machine(world, place).disk.fill_up(true);
            self.bad_disks.insert(place, until);
            self.counts.full += 1;
        }
    }

    fn harm_a_link(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let all = world.machines().count();
        let link = (self.rng.random_range(0..all), self.rng.random_range(0..all));
        let slow = Bad::Slow(self.ms(50..900));
        let bad = [Bad::Cut, Bad::OneWay, Bad::Held, slow][self.rng.random_range(0..4)];
        let until = now + if bad == Bad::Held { self.ms(200..6_000) } else { self.ms(500..20_000) };
        self.counts.cuts += usize::from(self.links.harm(sim, world, link, bad, until));
    }

    /// One machine can't reach the masters, one way or both, and all others.
    fn cut_off(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let place = self.rng.random_range(0..world.machines().count());
        let until = now + self.ms(1_000..25_000);
        let bad = if self.rng.random_bool(0.6) { Bad::Cut } else { Bad::OneWay };
        let is_mute = self.rng.random_bool(0.5);
        self.cut_from_masters(sim, world, (place, is_mute), bad, until);
    }

    fn cut_from_masters(
        &mut self,
        sim: &mut Sim<'_>,
        world: &World,
        (place, is_mute): (Place, bool),
        bad: Bad,
        until: Duration,
    ) {
        self.counts.cuts += 1;
        for other in (0..MASTERS).filter(|other| *other != place) {
            let link = if is_mute { (place, other) } else { (other, place) };
            self.links.harm_anyhow(sim, world, link, bad, until);
        }
    }

    /// A server has no masters for longer than they wait for it, and half of the time a writer hasn't either. Everybody
    /// else is well, so that the server goes on with those who write until another replica refuses.
    fn cut_off_alone(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let server = self.rng.random_range(FIRST_SERVER..world.mortal());
        let until = now + self.ms(12_000..25_000);
        let bad = if self.rng.random_bool(0.6) { Bad::Cut } else { Bad::OneWay };
        self.cut_from_masters(sim, world, (server, true), bad, until);
        if self.rng.random_bool(0.5) {
            let writer = self.rng.random_range(world.mortal()..world.machines().count());
            self.cut_from_masters(sim, world, (writer, true), Bad::Cut, until);
        }
        self.next = until + self.ms(500..4_000);
    }
}

fn has_stopped(world: &World, place: Place) -> bool {
    machine(world, place).has_stopped.load(Ordering::Relaxed)
}
