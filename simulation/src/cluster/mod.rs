//! Three masters, three volume servers, and who writes, reads and judges.

pub mod clients;
pub mod faults;
pub mod grants;
pub mod history;
pub mod judge;
pub mod machines;
pub mod run;
pub mod sabotage;
pub mod writers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hay_common::ids::ClusterId;
use hay_proto::rpc::credential::ClusterKey;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Time;
use crate::trace::Trace;
use history::History;
use machines::Machine;
use sabotage::Sabotage;

pub const MASTERS: usize = 3;
pub const SERVERS: usize = 3;
pub const WRITERS: usize = 2;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Writers write, and everything fails.
    Faults,
    /// Nothing fails any more; writers go on.
    Healed,
    /// Writers finish what they are at.
    Quiet,
    /// The judge has seen everything.
    Done,
}

/// All that outlives the processes of a run.
pub struct World {
    pub seed: u64,
    pub time: Arc<Time>,
    pub trace: Arc<Trace>,
    pub key: Arc<ClusterKey>,
    pub masters: Vec<Arc<Machine>>,
    pub servers: Vec<Arc<Machine>>,
    pub writers: Vec<Arc<Machine>>,
    pub judge: Arc<Machine>,
    pub history: History,
    pub sabotage: Option<Sabotage>,
    stage: AtomicU8,
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Arc<Self> {
        let time = Arc::new(Time::default());
        let trace = Trace::new(time.clone());
        let mut rng = StdRng::seed_from_u64(seed);
        let mut machine = |name: String, port| Arc::new(Machine::new(name, port, rng.random(), time.clone()));
        let mut several =
            |name: &str, port, count| (0..count).map(|n| machine(format!("{name}-{n}"), port)).collect();
        let (masters, servers) = (several("master", 7001, MASTERS), several("volume", 7002, SERVERS));
        let writers = several("writer", 7003, WRITERS);
        let judge = Arc::new(Machine::new("judge".to_owned(), 7004, seed, time.clone()));
        let key = ClusterKey::from_seed(ClusterId::from_random(u128::from(seed)), &[7; 32]).unwrap();
        let history = History::new(trace.clone());
        let stage = AtomicU8::new(Stage::Faults as u8);
        let key = Arc::new(key);
        Arc::new(Self { seed, time, trace, key, masters, servers, writers, judge, history, sabotage, stage })
    }

    pub fn stage(&self) -> Stage {
        [Stage::Faults, Stage::Healed, Stage::Quiet, Stage::Done]
            [usize::from(self.stage.load(Ordering::SeqCst))]
    }

    pub fn enter(&self, stage: Stage) {
        self.trace.note(format_args!("stage {stage:?}"));
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    pub fn master_addresses(&self) -> Vec<String> {
        self.masters.iter().map(|machine| machine.address()).collect()
    }
}
