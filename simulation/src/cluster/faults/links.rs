//! Links between machines: what is wrong with them, and how a machine falls silent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use turmoil::Sim;

use super::Place;
use crate::cluster::World;

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Loses everything.
    Cut,
    /// Loses what goes from the first to the second.
    OneWay,
    /// Holds everything back.
    Held,
    /// Takes so long.
    Slow(Duration),
}

/// As fast as links usually are, as far as turmoil lets it be said of one.
const USUAL: Duration = Duration::from_millis(5);

/// All that are not as they should be.
#[derive(Default)]
pub struct Links {
    /// Never the same two machines in both orders.
    bad: BTreeMap<(Place, Place), (Bad, Duration)>,
    /// Machines without power, and to whom their links are held back: nobody hears that they are gone.
    silent: BTreeMap<Place, BTreeSet<String>>,
}

fn name(world: &World, place: Place) -> &str {
    &super::machine(world, place).name
}

impl Links {
    fn between(&self, a: Place, b: Place) -> Option<(Place, Place)> {
        [(a, b), (b, a)].into_iter().find(|link| self.bad.contains_key(link))
    }

    /// Makes a link bad. One that is bad already stays as it is, and this says so; so does one to a silent machine where its
    /// two directions would fare differently, or as they do already.
    pub fn harm(
        &mut self,
        sim: &mut Sim<'_>,
        world: &World,
        (from, to): (Place, Place),
        bad: Bad,
        until: Duration,
    ) -> bool {
        let is_silent = [from, to].iter().any(|place| self.silent.contains_key(place));
        let is_possible = !is_silent || matches!(bad, Bad::Cut | Bad::Slow(_));
        if from == to || self.between(from, to).is_some() || !is_possible {
            return false;
        }
        let (a, b) = (name(world, from), name(world, to));
        world.trace.note(format_args!("{a} and {b}: {bad:?}"));
        match bad {
            Bad::Cut => sim.partition(a, b),
            Bad::OneWay => sim.partition_oneway(a, b),
            Bad::Held => sim.hold(a, b),
            Bad::Slow(latency) => sim.set_link_latency(a, b, latency),
        }
        self.bad.insert((from, to), (bad, until));
        true
    }

    /// The same, whatever was wrong with it before.
    pub fn harm_anyhow(
        &mut self,
        sim: &mut Sim<'_>,
        world: &World,
        link: (Place, Place),
        bad: Bad,
        until: Duration,
    ) {
        if let Some(before) = self.between(link.0, link.1) {
            self.mend(sim, world, before);
        }
        self.harm(sim, world, link, bad, until);
    }

    pub fn mend_those_until(&mut self, sim: &mut Sim<'_>, world: &World, now: Duration) {
        let over: Vec<_> =
            self.bad.iter().filter(|(_, (_, until))| *until <= now).map(|(link, _)| *link).collect();
        over.into_iter().for_each(|link| self.mend(sim, world, link));
    }

    fn mend(&mut self, sim: &mut Sim<'_>, world: &World, link: (Place, Place)) {
        let Some((bad, _)) = self.bad.remove(&link) else { return };
        let (a, b) = (name(world, link.0), name(world, link.1));
        world.trace.note(format_args!("{a} and {b}: no longer {bad:?}"));
        match bad {
            Bad::Cut => sim.repair(a, b),
            Bad::OneWay => sim.repair_oneway(a, b),
            Bad::Held => sim.release(a, b),
            Bad::Slow(_) => sim.set_link_latency(a, b, USUAL),
        }
    }

    /// The process on a machine without power is taken away: what it had sent arrives, but no word of its connections' end.
    pub fn crash_silently(&mut self, sim: &mut Sim<'_>, world: &World, place: Place) {
        let own = name(world, place);
        let all = world.machines().map(|machine| machine.name.as_str()).chain([world.judge.name.as_str()]);
        let is_passable = |(other, _): &(usize, &str)| {
            self.between(place, *other)
                .is_none_or(|link| matches!(self.bad.get(&link), Some((Bad::Slow(_), _))))
        };
        let others = all.enumerate().filter(|(other, _)| *other != place).filter(is_passable);
        let others: BTreeSet<String> = others.map(|(_, name)| name.to_owned()).collect();
        let here = sim.lookup(own);
        let there: BTreeSet<_> = others.iter().map(|other| sim.lookup(other.as_str())).collect();
        let is_held =
            |(a, b): (IpAddr, IpAddr)| (a == here && there.contains(&b)) || (b == here && there.contains(&a));
        let mut sent = Vec::new();
        sim.links(|links| {
            let held = links.filter(|link| is_held(link.pair()));
            sent.extend(held.map(|link| (link.pair(), link.count())));
        });
        others.iter().for_each(|other| sim.hold(own, other.as_str()));
        sim.crash(own);
        let sent: BTreeMap<_, _> = sent.into_iter().collect();
        sim.links(|links| {
            for link in links.filter(|link| is_held(link.pair())) {
                let count = sent.get(&link.pair()).copied().unwrap_or(0);
                link.take(count).for_each(turmoil::SentRef::deliver);
            }
        });
        self.silent.insert(place, others);
    }

    /// A machine has power again: those that still speak to its last run hear that there is none.
    pub fn speak_again(&mut self, sim: &mut Sim<'_>, world: &World, place: Place) {
        let own = name(world, place);
        for other in self.silent.remove(&place).unwrap_or_default() {
            let at = world.machines().position(|machine| machine.name == other);
            let is_silent = at.is_some_and(|at| self.silent.contains_key(&at));
            let is_bad = at
                .and_then(|at| self.between(place, at))
                .is_some_and(|link| !matches!(self.bad.get(&link), Some((Bad::Slow(_), _))));
            if !is_silent && !is_bad {
                sim.release(own, other.as_str());
            }
        }
    }
}
