//! Three masters, three to five volume servers, and who writes, reads and judges.

pub mod clients;
pub mod compare;
pub mod faults;
pub mod grants;
pub mod history;
pub mod judge;
pub mod machines;
pub mod replicas;
pub mod run;
pub mod sabotage;
pub mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hay_common::ids::{ClusterId, NodeId};
use hay_proto::rpc::credential::ClusterKey;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Time;
use crate::trace::Trace;
use history::History;
use machines::Machine;
use sabotage::Sabotage;

pub const MASTERS: usize = 3;
pub const WRITERS: usize = 2;

/// How many servers there are and on how many of them a volume is, each as often as it stands here.
const SIZES: [(usize, u8); 4] = [(3, 2), (3, 2), (4, 3), (5, 3)];

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Writers write, and everything fails.
    Faults,
    /// Nothing fails any more; writers go on, more slowly.
    Healed,
    /// Writers finish what they are at.
    Quiet,
    /// All masters and servers lose their power at once.
    Dark,
    /// They run again.
    Risen,
    /// The judge has seen everything.
    Done,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Faults, Self::Healed, Self::Quiet, Self::Dark, Self::Risen, Self::Done];
}

/// All that outlives the processes of a run.
pub struct World {
    pub seed: u64,
    /// On how many servers a volume is.
    pub copies: u8,
    pub time: Arc<Time>,
    pub trace: Arc<Trace>,
    pub key: Arc<ClusterKey>,
    pub masters: Vec<Arc<Machine>>,
    pub servers: Vec<Arc<Machine>>,
    pub writers: Vec<Arc<Machine>>,
    pub judge: Arc<Machine>,
    pub history: History,
    pub sabotage: Option<Sabotage>,
    /// The server whose disk was lost: it came back as another.
    pub wiped: Mutex<Option<NodeId>>,
    stage: AtomicU8,
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Arc<Self> {
        let time = Arc::new(Time::default());
        let trace = Trace::new(time.clone());
        let mut rng = StdRng::seed_from_u64(seed);
        let (server_count, copies) = SIZES[rng.random_range(0..SIZES.len())];
        let mut machine = |name: String, port| Arc::new(Machine::new(name, port, rng.random(), time.clone()));
        let mut several =
            |name: &str, port, count| (0..count).map(|n| machine(format!("{name}-{n}"), port)).collect();
        let (masters, servers) = (several("master", 7001, MASTERS), several("volume", 7002, server_count));
        let writers = several("writer", 7003, WRITERS);
        let judge = Arc::new(Machine::new("judge".to_owned(), 7004, seed, time.clone()));
        let key = ClusterKey::from_seed(ClusterId::from_random(u128::from(seed)), &[7; 32]).unwrap();
        let history = History::new(trace.clone());
        let stage = AtomicU8::new(Stage::Faults as u8);
        let key = Arc::new(key);
        let wiped = Mutex::default();
        Arc::new(Self {
            seed,
            copies,
            time,
            trace,
            key,
            masters,
            servers,
            writers,
            judge,
            history,
            sabotage,
            wiped,
            stage,
        })
    }

    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::SeqCst))]
    }

    pub fn enter(&self, stage: Stage) {
        self.trace.note(format_args!("stage {stage:?}"));
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    pub fn master_addresses(&self) -> Vec<String> {
        self.masters.iter().map(|machine| machine.address()).collect()
    }

    /// All machines but the judge's: masters, servers, writers.
    pub fn machines(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.masters.iter().chain(&self.servers).chain(&self.writers)
    }

    /// How many of them have disks that count: masters and servers, the first ones.
    pub fn mortal(&self) -> usize {
        self.masters.len() + self.servers.len()
    }
}
