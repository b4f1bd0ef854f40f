//! Reports to the masters, and does what they say. The volume server dials; the masters dial nobody.
//!
//! Every stream begins with all volumes; then come changes, each second or as soon as a command is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hay_common::clock::SharedClock;
use hay_common::error::{ErrorCode, Remedy};
use hay_common::ids::VolumeId;
use hay_common::limits::{HEARTBEAT_EVERY, HEARTBEAT_GONE, HEARTBEAT_VOLUMES_MAX, RPC_STREAM_DEPTH};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynMaster;
use tokio::sync::{mpsc, watch};

use crate::grpc::heartbeat::{self as wire, Command, Report};
use crate::orders::{Order, Orders};
use crate::replicate::{Confirmation, Replication};
use crate::server::{VolumeServerConfig, stopping};
use crate::store::{Store, VolumeInfo};

/// Between two tries to reach a master. Without end: a volume server has nothing better to do.
const RECONNECT: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(50),
    pause_max: Duration::from_millis(500),
};

/// Why a stream to a master ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Refused(hay_common::error::Failure),
    #[error("the master closed the stream")]
    Closed,
    #[error("the master did not answer for {} s", HEARTBEAT_GONE.as_secs())]
    Silent,
    #[error("this server has not done yet what the masters said before")]
    Behind,
    #[error("this server stops")]
    Stopping,
}

impl Ended {
    /// Why the masters don't want this server at all; such a refusal does not pass by itself.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Refused(failure) if failure.code == ErrorCode::CredentialRefused || self.disowns() => {
                Some(failure.message.clone())
            }
            _ => None,
        }
    }

    /// Whether the master that leads knows who this is, and takes it for nobody of its servers. One that does not take the
    /// credential knows nothing: its clock may be wrong, and it need not lead.
    fn disowns(&self) -> bool {
        matches!(self, Self::Refused(failure) if failure.code.remedy() == Remedy::FixRequest)
    }
}

/// What others in this process learn from the heartbeat.
pub(crate) struct Told {
    /// When a master last answered, on the monotonic clock.
    pub heard: watch::Sender<Option<Duration>>,
    /// Why the masters refuse this server.
    pub refused: watch::Sender<Option<String>>,
}

/// What is known of the masters' knowledge.
pub(crate) struct Heartbeat {
    config: VolumeServerConfig,
    store: Arc<Store>,
    replication: Arc<Replication>,
    orders: Arc<Orders>,
    clock: SharedClock,
    random: SharedRandom,
    told: Told,
    /// This run of the server.
    instance: u128,
    sequence: u64,
    /// As last reported on this stream.
    reported: HashMap<VolumeId, VolumeInfo>,
}

impl Heartbeat {
    pub fn new(
        config: VolumeServerConfig,
        own: (Arc<Store>, Arc<Replication>, Arc<Orders>),
        clock: SharedClock,
        random: SharedRandom,
        told: Told,
    ) -> Self {
        let (store, replication, orders) = own;
        let instance = random.u128();
        let reported = HashMap::new();
        Self { config, store, replication, orders, clock, random, told, instance, sequence: 0, reported }
    }

    /// Until `stopped` says so.
    pub async fn run(mut self, master: DynMaster, mut stopped: watch::Receiver<bool>) {
        let mut attempt = 0;
        loop {
            let before = *self.told.heard.borrow();
            let ended = self.stream(&master, &mut stopped).await;
            if matches!(ended, Ended::Stopping) {
                return;
            }
            if ended.disowns() {
                self.replication.disown();
            }
            self.told.refused.send_replace(ended.refusal());
            if *self.told.heard.borrow() != before {
                attempt = 0;
            }
            attempt += 1;
            let pause = RECONNECT.pause(attempt, self.random.as_ref()).unwrap_or(RECONNECT.pause_max);
            tracing::warn!(reason = %ended, again_ms = pause.as_millis() as u64, "the heartbeat ended");
            tokio::select! {
                () = stopping(&mut stopped) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn stream(&mut self, master: &DynMaster, stopped: &mut watch::Receiver<bool>) -> Ended {
        let (reports, outgoing) = mpsc::channel(RPC_STREAM_DEPTH);
        self.orders.begin();
        let first = self.reports(true, &HashSet::new());
        // Beside each other: a stream takes no more reports than it has room for before it is opened.
        let opened = async { tokio::join!(send(&reports, first), wire::open(master, outgoing)) };
        let opened = tokio::select! {
            () = stopping(stopped) => return Ended::Stopping,
            opened = opened => opened,
        };
        let mut commands = match opened {
            (_, Err(failure)) => return Ended::Refused(failure),
            (Err(ended), Ok(_)) => return ended,
            (Ok(()), Ok(commands)) => commands,
        };
        let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet_since = self.clock.monotonic();
        let (replication, orders) = (self.replication.clone(), self.orders.clone());
        loop {
            let due = tokio::select! {
                // What has come before the clock: after a pause of this process both are there.
                biased;
                () = stopping(stopped) => return Ended::Stopping,
                command = commands.next() => {
                    quiet_since = self.clock.monotonic();
                    match command {
                        None => return Ended::Closed,
                        Some(Err(failure)) => return Ended::Refused(failure),
                        Some(Ok(command)) => match self.obey(command) {
                            Ok(true) => self.reports(true, &HashSet::new()),
                            Ok(false) => continue,
                            Err(ended) => return ended,
                        },
                    }
                }
                // A command is done, or a replica failed, or a volume is filled: the masters should not hear of it a
                // second later.
                named = orders.done() => self.reports(false, &named),
                () = replication.news.notified() => self.reports(false, &HashSet::new()),
                _ = ticks.tick() => {
                    // Each report is answered. A master that is cut off or paused is not waited for as long as one waits
                    // for a server: others may lead.
                    if self.clock.monotonic().saturating_sub(quiet_since) > HEARTBEAT_GONE {
                        return Ended::Silent;
                    }
                    self.reports(false, &HashSet::new())
                }
            };
            if let Err(ended) = send(&reports, due).await {
                return ended;
            }
        }
    }

    /// Takes in what a command says; what needs the disk is done beside it. Gives whether everything is to be reported.
    fn obey(&mut self, command: Command) -> Result<bool, Ended> {
        self.replication.own_again();
        self.told.refused.send_if_modified(|refused| refused.take().is_some());
        self.told.heard.send_replace(Some(self.clock.monotonic()));
        let order = match command {
            Command::Acknowledge => return Ok(false),
            Command::FullReport => return Ok(true),
            Command::Create { volume, epoch, class, members } => {
                Order::Create { volume, epoch, class, members }
            }
            Command::Seal { volume, epoch } => Order::Seal { volume, epoch },
            Command::Fill(fill) => Order::Fill(fill),
            Command::Confirm(confirmations) => {
                let left: Vec<Confirmation> =
                    confirmations.into_iter().filter(|said| self.replication.hear(said)).collect();
                if !left.is_empty() && self.orders.give(Order::Confirm(left)).is_err() {
                    // Nobody says it twice, but to a stream that begins.
                    return Err(Ended::Behind);
                }
                return Ok(false);
            }
        };
        if self.orders.give(order).is_err() {
            tracing::warn!(
                "more commands wait than this server may have before it; the master says this one again"
            );
        }
        Ok(false)
    }

    /// All volumes, or those that have changed and those in `named`: in as many messages as they need. Of a full report the
    /// first says that it is one, and each that is full of volumes that others follow.
    fn reports(&mut self, full: bool, named: &HashSet<VolumeId>) -> Vec<Report> {
        let infos = self.replication.infos();
        let digest = hay_common::model::volumes_digest(infos.iter().map(|i| (i.id, i.epoch, i.state)));
        let removed = if full { Vec::new() } else { self.gone(&infos) };
        let volumes = infos.iter().filter_map(|info| {
            let before = self.reported.get(&info.id);
            let is_due = full || named.contains(&info.id) || before != Some(info);
            // The store counts since its start, a report since the last one.
            let reads = info.reads.saturating_sub(before.map_or(0, |b| b.reads));
            is_due.then(|| VolumeInfo { reads, ..info.clone() })
        });
        let volumes = volumes.collect();
        self.reported = infos.into_iter().map(|info| (info.id, info)).collect();
        let parts = parts(volumes, HEARTBEAT_VOLUMES_MAX).into_iter().enumerate();
        let mut reports: Vec<Report> =
            parts.map(|(n, part)| self.message(full && n == 0, part, digest)).collect();
        if let Some(last) = reports.last_mut() {
            last.removed = removed;
        }
        reports
    }

    fn message(&mut self, full: bool, volumes: Vec<VolumeInfo>, digest: u64) -> Report {
        self.sequence += 1;
        Report {
            full,
            node: self.store.node(),
            cluster: self.config.store.cluster,
            address: self.config.address.clone(),
            rack: self.config.rack.clone(),
            zone: self.config.zone.clone(),
            tier: self.config.tier.clone(),
            volumes,
            removed: Vec::new(),
            space: self.store.space(),
            reserve_bytes: self.config.store.reserve_bytes,
            digest,
            sequence: self.sequence,
            instance: self.instance,
        }
    }

    /// Those that are not there any more.
    fn gone(&self, infos: &[VolumeInfo]) -> Vec<VolumeId> {
        let there: HashSet<VolumeId> = infos.iter().map(|i| i.id).collect();
        self.reported.keys().copied().filter(|id| !there.contains(id)).collect()
    }
}

/// Parts of at most `max`. The last has fewer: that is how a master knows it.
fn parts<T>(mut all: Vec<T>, max: usize) -> Vec<Vec<T>> {
    let mut parts = Vec::with_capacity(1);
    loop {
        let rest = all.split_off(all.len().min(max));
        let part = std::mem::replace(&mut all, rest);
        let is_last = part.len() < max;
        parts.push(part);
        if is_last {
            return parts;
        }
    }
}

/// To a master that takes them, each in its time.
async fn send(reports: &mpsc::Sender<Report>, due: Vec<Report>) -> Result<(), Ended> {
    for report in due {
        match tokio::time::timeout(HEARTBEAT_GONE, reports.send(report)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Ended::Closed),
            Err(_) => return Err(Ended::Silent),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn the_last_part_is_the_one_that_is_not_full() {
        assert_eq!(parts(Vec::<u8>::new(), 3), [[0; 0]]);
        assert_eq!(parts(vec![1, 2], 3), [vec![1, 2]]);
        assert_eq!(parts(vec![1, 2, 3], 3), [vec![1, 2, 3], vec![]]);
        assert_eq!(parts(vec![1, 2, 3, 4, 5, 6, 7], 3), [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    }
}
