//! Writers, servers and masters that disagree about an epoch can't lose a needle.
//!
//! A model from a seed: the real plan and state of the masters; servers that keep the rules of a replica (persist the highest
//! epoch and refuse lower ones, take nothing once sealed, acknowledge when all have it); messages that are late, lost, or
//! happen without their answer; heartbeats that are cut while appends are not. The rules can be broken one at a time, and the
//! test must see it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hay_common::random::{SeededRandom, SharedRandom};

use super::*;
use crate::state::Member;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Acknowledged when the primary alone has it.
    OwnSyncOnly,
    /// The map says sealed before a member has taken the epoch.
    PublishedBeforeSeal,
    /// Lower epochs are taken, also after a seal.
    LowerEpochTaken,
}

#[derive(Clone, Default)]
struct Copy {
    epoch: Epoch,
    sealed: bool,
    needles: BTreeSet<u64>,
}

/// An append on its way: to each member in turn or not at all.
struct InFlight {
    needle: u64,
    epoch: Epoch,
    missing: VecDeque<NodeId>,
    failed: bool,
}

struct Model {
    random: SharedRandom,
    broken: Broken,
    state: State,
    live: Live,
    policy: Policy,
    now: Duration,
    volume: VolumeId,
    members: Vec<Member>,
    copies: BTreeMap<NodeId, Copy>,
    sessions: BTreeMap<NodeId, (u64, mpsc::Receiver<Down>)>,
    cut: BTreeSet<NodeId>,
    flights: Vec<InFlight>,
    /// What writers believe the epoch to be; some never hear of another.
    leases: Vec<Epoch>,
    next: u64,
    acknowledged: BTreeSet<u64>,
    /// What a repair would have copied when the map first said that the volume is sealed, from each member that it might
    /// have chosen.
    at_seal: Option<Vec<BTreeSet<u64>>>,
}

impl Model {
    fn new(seed: u64, broken: Broken) -> Self {
        let random = SeededRandom::shared(seed);
        let replicas = 2 + (random.u32() % 2) as u8;
        let world = World::new(replicas, replicas);
        let (volume, members) = {
            let (id, volume) = world.state.volumes.iter().next().unwrap();
            (*id, volume.members.clone())
        };
        let copy = Copy { epoch: Epoch(1), ..Copy::default() };
        let copies = members.iter().map(|m| (m.node, copy.clone())).collect();
        let mut model = Self {
            random,
            broken,
            state: world.state,
            live: Live::default(),
            policy: world.policy,
            now: world.now,
            volume,
            members,
            copies,
            sessions: BTreeMap::new(),
            cut: BTreeSet::new(),
            flights: Vec::new(),
            leases: vec![Epoch(1); 3],
            next: 0,
            acknowledged: BTreeSet::new(),
            at_seal: None,
        };
        model.live.begin(model.now);
        for node in model.copies.keys().copied().collect::<Vec<_>>() {
            model.connect(node);
        }
        model
    }

    fn connect(&mut self, node: NodeId) {
        let (tx, commands) = mpsc::channel(1000);
        let session = self.live.connect(node, tx, self.now);
        self.sessions.insert(node, (session, commands));
        self.report(node, None);
    }

    fn report(&mut self, node: NodeId, failed: Option<NodeId>) {
        let (copy, session) = (&self.copies[&node], self.sessions[&node].0);
        let state = if copy.sealed { VolumeState::Sealed } else { VolumeState::Writable };
        let report = VolumeReport {
            state,
            failed_replica: failed,
            read_only_reason: failed.map(|_| "a replica failed".to_owned()),
            ..fresh(self.volume, copy.epoch, SizeClass::Small)
        };
        let report = Report {
            full: true,
            node,
            info: Node { address: "x".to_owned(), ..Node::default() },
            digest: volumes_digest([(self.volume, copy.epoch, state)]),
            volumes: vec![report],
            removed: Vec::new(),
            free_bytes: 0,
            reserve_bytes: 0,
            total_bytes: 0,
            sequence: 1,
            partial: false,
            instance: None,
        };
        let _ = self.live.hear(session, report, self.now);
    }

    fn pick(&self, from: usize, to: usize) -> usize {
        from + self.random.u32() as usize % (to - from)
    }

    /// So many times of ten.
    fn chance(&self, tenths: usize) -> bool {
        self.pick(0, 10) < tenths
    }

    fn member(&self) -> NodeId {
        let at = self.pick(0, self.members.len());
        self.members[at].node
    }

    /// Whether a copy takes an append.
    fn stores(&mut self, node: NodeId, needle: u64, epoch: Epoch) -> bool {
        let rule_broken = self.broken == Broken::LowerEpochTaken;
        let copy = self.copies.get_mut(&node).unwrap();
        if !rule_broken && (copy.sealed || epoch < copy.epoch) {
            return false;
        }
        copy.epoch = copy.epoch.max(epoch);
        copy.needles.insert(needle);
        true
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.pick(1, 1500) as u64);
        match self.pick(0, 100) {
            0..30 => self.begin_append(),
            30..60 => self.go_on(),
            60..75 => {
                let node = self.member();
                if !self.cut.contains(&node) {
                    let failed = self.chance(2).then(|| self.member());
                    self.report(node, failed.filter(|failed| *failed != node));
                }
            }
            75..85 => self.deliver(),
            85..90 => {
                let node = self.member();
                if !self.cut.remove(&node) {
                    self.cut.insert(node);
                } else {
                    self.connect(node);
                }
            }
            90..93 => {
                // A full disk, a failed sync: it seals itself in its own epoch.
                let (node, seals) = (self.member(), self.chance(3));
                self.copies.get_mut(&node).unwrap().sealed |= seals;
            }
            _ => {
                let who = self.pick(0, self.leases.len());
                self.leases[who] = self.state.volumes[&self.volume].epoch;
            }
        }
        self.decide();
    }

    fn begin_append(&mut self) {
        let who = self.pick(0, self.leases.len());
        let epoch = self.leases[who];
        let primary = self.member();
        self.next += 1;
        let needle = self.next;
        if !self.stores(primary, needle, epoch) {
            return;
        }
        if self.broken == Broken::OwnSyncOnly {
            self.acknowledge(needle);
        }
        let missing = self.members.iter().map(|m| m.node).filter(|node| *node != primary).collect();
        self.flights.push(InFlight { needle, epoch, missing, failed: false });
    }

    /// One append reaches one more member, or doesn't.
    fn go_on(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.pick(0, self.flights.len());
        let (needle, epoch, node) = {
            let flight = &mut self.flights[at];
            (flight.needle, flight.epoch, flight.missing.pop_front().unwrap())
        };
        let lost = self.pick(0, 10);
        // Lost on the way; or stored, and the answer lost; or stored and heard.
        let stored = lost != 0 && self.stores(node, needle, epoch);
        self.flights[at].failed |= !stored || lost == 1;
        if self.flights[at].missing.is_empty() {
            let flight = self.flights.swap_remove(at);
            if !flight.failed {
                self.acknowledge(needle);
            }
        }
    }

    fn acknowledge(&mut self, needle: u64) {
        self.acknowledged.insert(needle);
    }

    /// Servers do what has reached them.
    fn deliver(&mut self) {
        let node = self.member();
        if self.cut.contains(&node) {
            return;
        }
        while let Ok(down) = self.sessions.get_mut(&node).unwrap().1.try_recv() {
            let copy = self.copies.get_mut(&node).unwrap();
            match down {
                Down::Seal { volume, epoch } if volume == self.volume => {
                    copy.epoch = copy.epoch.max(epoch);
                    copy.sealed = true;
                }
                Down::Confirm(confirmed) => {
                    let is_sealed = |c: &&crate::live::Confirmed| {
                        c.volume == self.volume && c.state == VolumeState::Sealed
                    };
                    if let Some(confirmed) = confirmed.iter().find(is_sealed) {
                        copy.epoch = copy.epoch.max(confirmed.epoch);
                        copy.sealed = true;
                    }
                }
                _ => {}
            }
        }
        self.report(node, None);
    }

    fn decide(&mut self) {
        let view = View { state: &self.state, live: &self.live, now: self.now, policy: &self.policy };
        let plan = decide(&view);
        for (node, down) in plan.down {
            self.live.send(node, down, self.now);
        }
        self.live.tell(self.state.version);
        for command in plan.commands {
            if matches!(command, Command::Create(_)) {
                continue;
            }
            self.state.apply(command);
        }
        if self.broken == Broken::PublishedBeforeSeal
            && let Some(epoch) = self.state.sealing(self.volume)
        {
            self.state.apply(Command::Sealed { volume: self.volume, epoch });
        }
        if self.at_seal.is_none() && self.state.volumes[&self.volume].state == VolumeState::Sealed {
            let has_sealed =
                |copy: &&Copy| copy.sealed && copy.epoch >= self.state.volumes[&self.volume].epoch;
            let mut sources: Vec<&Copy> = self.copies.values().filter(has_sealed).collect();
            if sources.is_empty() {
                sources.extend(self.copies.values());
            }
            self.at_seal = Some(sources.into_iter().map(|copy| copy.needles.clone()).collect());
        }
    }

    /// What is wrong, if anything is.
    fn check(&self) -> Result<(), String> {
        for needle in &self.acknowledged {
            for (node, copy) in &self.copies {
                if !copy.needles.contains(needle) {
                    return Err(format!("needle {needle} was acknowledged and is not on {node}"));
                }
            }
        }
        for copy in self.at_seal.iter().flatten() {
            if let Some(lost) = self.acknowledged.difference(copy).next() {
                return Err(format!("needle {lost} was acknowledged, and a repair would not have copied it"));
            }
        }
        Ok(())
    }
}

/// The first seed at which something is wrong.
fn first_wrong(broken: Broken, seeds: u64) -> Option<(u64, String)> {
    let (mut sealed, mut acknowledged) = (0, 0);
    for seed in 0..seeds {
        let mut model = Model::new(seed, broken);
        for _ in 0..120 {
            model.step();
            if let Err(wrong) = model.check() {
                return Some((seed, wrong));
            }
        }
        sealed += u64::from(model.at_seal.is_some());
        acknowledged += model.acknowledged.len();
    }
    assert!(sealed > seeds / 4, "{sealed} seals");
    assert!(acknowledged > seeds as usize, "{acknowledged} needles");
    None
}

#[test]
fn no_disagreement_about_an_epoch_loses_a_needle() {
    assert_eq!(first_wrong(Broken::Nothing, 10_000), None);
}

#[test]
fn the_model_sees_each_rule_that_is_broken() {
    for broken in [Broken::OwnSyncOnly, Broken::PublishedBeforeSeal, Broken::LowerEpochTaken] {
        assert!(first_wrong(broken, 500).is_some(), "{broken:?} went unseen");
    }
}
