//! Random histories: clients write and read while members are killed, cut off and slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hay_common::random::{Random, SeededRandom};
use parking_lot::Mutex;

use super::checker::{Seen, What, check};
use super::{Cluster, eventually};
use crate::switchboard::Weather;
use crate::tests::Journal;
use crate::{Group, ProposeError};

/// What the clients share. Times are ticks of one counter: only their order counts.
#[derive(Default)]
struct Stage {
    clock: AtomicU64,
    over: AtomicBool,
    history: Mutex<Vec<Seen>>,
    members: Mutex<Vec<Option<(Group, Journal)>>>,
}

impl Stage {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn show(&self, cluster: &Cluster) {
        let member = |place: &super::Place| place.group.clone().map(|g| (g, place.journal.clone()));
        *self.members.lock() = cluster.places.iter().map(member).collect();
    }

    fn any(&self, random: &dyn Random) -> Option<(Group, Journal)> {
        let members = self.members.lock();
        members[random.u32() as usize % members.len()].clone()
    }
}

async fn client(stage: Arc<Stage>, name: u32, seed: u64) {
    let random = SeededRandom::shared(seed * 100 + u64::from(name));
    for n in 0.. {
        if stage.over.load(Ordering::SeqCst) {
            return;
        }
        let Some((group, journal)) = stage.any(random.as_ref()) else { continue };
        let began = stage.now();
        let seen = if random.u32().is_multiple_of(2) {
            let command = format!("{name}.{n}");
            match group.propose(Bytes::from(command.clone())).await {
                Ok(reply) => {
                    let told = u64::from_le_bytes(reply.as_ref().try_into().unwrap()) as usize;
                    Some((Some(stage.now()), What::Append(command, Some(told))))
                }
                Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded(_)) => {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                    Some((None, What::Refused(command)))
                }
                Err(_) => Some((None, What::Append(command, None))),
            }
        } else {
            let read = group.read_barrier().await.map(|()| journal.commands().len());
            read.ok().map(|length| (Some(stage.now()), What::Read(length)))
        };
        match seen {
            Some((ended, what)) => stage.history.lock().push(Seen { began, ended, what }),
            None => tokio::time::sleep(Duration::from_millis(3)).await,
        }
    }
}

/// One fault, or one mending.
async fn disturb(cluster: &mut Cluster, stage: &Stage, random: &dyn Random) {
    let n = random.u32() as usize % cluster.places.len();
    match random.u32() % 8 {
        0 | 1 => {
            cluster.kill(n).await;
            stage.show(cluster);
            tokio::time::sleep(Duration::from_millis(u64::from(random.u32() % 300))).await;
            cluster.start(n).await;
            stage.show(cluster);
        }
        2 | 3 => {
            let leader = cluster.leader_hint().unwrap_or(n);
            let others: Vec<&str> = (0..cluster.places.len())
                .filter(|other| *other != leader)
                .map(|other| cluster.places[other].address.as_str())
                .collect();
            cluster.board.part(&[cluster.places[leader].address.as_str()], &others);
        }
        4 => {
            let m = random.u32() as usize % cluster.places.len();
            cluster.board.cut(&cluster.places[n].address, &cluster.places[m].address);
        }
        5 => cluster.board.weather(Weather {
            delay_max: Duration::from_millis(u64::from(random.u32() % 30)),
            lost_per_mille: random.u32() % 100,
            twice_per_mille: random.u32() % 200,
            snapshot_parts_max: None,
        }),
        _ => {
            cluster.board.mend();
            cluster.board.weather(Weather::default());
        }
    }
    tokio::time::sleep(Duration::from_millis(u64::from(random.u32() % 400))).await;
}

impl Cluster {
    fn leader_hint(&self) -> Option<usize> {
        self.running().into_iter().find(|n| self.group(*n).leading().borrow().is_some())
    }
}

async fn run(seed: u64, faults: usize) -> usize {
    let mut cluster = Cluster::formed(3, seed).await;
    let random = SeededRandom::shared(seed ^ 0xfa_0175);
    let stage = Arc::new(Stage::default());
    stage.show(&cluster);
    let clients: Vec<_> = (0..4).map(|name| tokio::spawn(client(stage.clone(), name, seed))).collect();
    for _ in 0..faults {
        disturb(&mut cluster, &stage, random.as_ref()).await;
    }
    cluster.board.mend();
    cluster.board.weather(Weather::default());
    stage.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    cluster.write_among(&[0, 1, 2], "the end").await;
    eventually("all hold the end", || {
        (0..3).all(|n| cluster.has(n).last().is_some_and(|last| last == "the end")).then_some(())
    })
    .await;
    cluster.agree(&[0, 1, 2]).await;
    let mut log = cluster.has(0);
    // Its writer may have had to repeat it.
    log.truncate(log.iter().position(|command| command == "the end").unwrap());
    let history = stage.history.lock().clone();
    check(&log, &history).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    cluster.end().await;
    history.iter().filter(|seen| seen.ended.is_some()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_under_faults_are_linearizable() {
    let rounds = std::env::var("HAY_RAFT_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut seen = 0;
    for seed in 0..rounds {
        seen += run(seed, 15).await;
    }
    assert!(seen > 20 * rounds as usize, "only {seen} operations got through");
}
