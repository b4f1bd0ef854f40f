//! Random histories from a seed: whatever fails, what was acknowledged is on every replica then, and on every survivor after
//! a seal; and after a seal by a single survivor nothing is acknowledged any more.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

struct History {
    world: World,
    rng: StdRng,
    seed: u64,
    next: u128,
    acknowledged: BTreeMap<u128, usize>,
    /// Some member has durably taken the fencing epoch.
    fenced: bool,
}

impl History {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..4);
        let class = if rng.random_bool(0.8) { SizeClass::Small } else { SizeClass::Large };
        let world = World::new(count, class).await;
        Self { world, rng, seed, next: 0, acknowledged: BTreeMap::new(), fenced: false }
    }

    fn server(&mut self) -> usize {
        self.rng.random_range(0..self.world.servers.len())
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..55 => self.write().await,
            55..75 => self.disturb(),
            75..80 => self.world.links.heal(),
            80..88 => {
                let n = self.server();
                self.world.kill_and_start(n).await;
                if self.rng.random_bool(0.7) && !self.fenced {
                    self.world.confirm(n, FIRST, VolumeState::Writable, Part::Whole).await;
                }
            }
            88..94 => {
                let n = self.server();
                let (epoch, state) = if self.fenced {
                    (Epoch(2), VolumeState::Sealed)
                } else {
                    (FIRST, VolumeState::Writable)
                };
                self.world.confirm(n, epoch, state, Part::Whole).await;
            }
            _ => {
                let n = self.server();
                self.world.seal(n, Epoch(2)).await;
                self.fenced = true;
            }
        }
    }

    fn disturb(&mut self) {
        let (from, to) = (self.server(), self.server());
        let fate = match self.rng.random_range(0..3) {
            0 => Fate::Cut,
            1 => Fate::Unheard,
            _ => Fate::Slow(Duration::from_millis(self.rng.random_range(1..20))),
        };
        self.world.links.set(from, to, fate);
    }

    /// Some writers at once, with leases that may be old, at servers that may not be the first.
    async fn write(&mut self) {
        let is_large = self.world.class == SizeClass::Large;
        let len = if is_large { (1 << 20) + 3 } else { self.rng.random_range(0..3000) };
        let count = if is_large { 2 } else { self.rng.random_range(1..8) };
        let asks: Vec<_> = (0..count)
            .map(|n| {
                let primary = if self.rng.random_bool(0.8) { 0 } else { self.server() };
                let epoch = if self.rng.random_bool(0.9) { FIRST } else { Epoch(2) };
                (self.next + n, primary, epoch)
            })
            .collect();
        self.next += count;
        let world = &self.world;
        let (seed, was_fenced) = (self.seed, self.fenced);
        let written = asks.into_iter().map(|(needle, primary, epoch)| async move {
            world.append_at(primary, epoch, needle, len).await.ok()?;
            assert!(!was_fenced, "seed {seed}: needle {needle} was acknowledged after a member was sealed");
            for n in 0..world.servers.len() {
                assert!(world.has(n, needle), "seed {seed}: needle {needle} is not on server {n}");
            }
            Some(needle)
        });
        let written = join_all(written).await;
        self.acknowledged.extend(written.into_iter().flatten().map(|needle| (needle, len)));
    }

    /// Every server is killed and started, and all that was acknowledged is read on each.
    async fn end(mut self) -> usize {
        self.world.links.heal();
        for n in 0..self.world.servers.len() {
            self.world.kill_and_start(n).await;
            self.world.confirm(n, Epoch(2), VolumeState::Sealed, Part::Whole).await;
            for (needle, len) in &self.acknowledged {
                let held = self.world.holds(n, *needle, *len).await;
                assert!(held, "seed {}: needle {needle} is lost on server {n}", self.seed);
            }
        }
        self.acknowledged.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_what_was_acknowledged_is_on_every_replica() {
    let mut acknowledged = 0;
    for seed in 0..40 {
        let mut history = History::new(seed).await;
        for _ in 0..30 {
            history.step().await;
        }
        acknowledged += history.end().await;
    }
    assert!(acknowledged > 300, "only {acknowledged} needles were acknowledged at all");
}
