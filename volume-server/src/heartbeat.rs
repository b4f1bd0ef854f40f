//! Reports to the masters, and does what they say. The volume server dials; the masters dial nobody.
//!
//! Every stream begins with all volumes; then come changes, each second or as soon as a command is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hay_common::clock::SharedClock;
use hay_common::error::Remedy;
use hay_common::ids::VolumeId;
use hay_common::limits::{HEARTBEAT_EVERY, HEARTBEAT_TIMEOUT, RPC_STREAM_DEPTH};
use hay_common::random::SharedRandom;
use hay_common::retry::RetryPolicy;
use hay_proto::rpc::DynMaster;
use tokio::sync::{mpsc, watch};

use crate::grpc::heartbeat::{self as wire, Command, Report};
use crate::replicate::{Confirmation, Replication};
use crate::server::{VolumeServerConfig, stopping};
use crate::store::{Store, StoreError, VolumeInfo};

/// Between two tries to reach a master. Without end: a volume server has nothing better to do.
const RECONNECT: RetryPolicy = RetryPolicy {
    attempts_max: u32::MAX,
    pause_first: Duration::from_millis(50),
    pause_max: Duration::from_secs(2),
};

/// Why a stream to a master ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Refused(hay_common::error::Failure),
    #[error("the master closed the stream")]
    Closed,
    #[error("the master did not answer for {} s", HEARTBEAT_TIMEOUT.as_secs())]
    Silent,
    #[error("this server stops")]
    Stopping,
}

impl Ended {
    /// Why the masters don't want this server at all; such a refusal does not pass by itself.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Refused(failure) if failure.code.remedy() == Remedy::FixRequest => {
                Some(failure.message.clone())
            }
            _ => None,
        }
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
        store: Arc<Store>,
        replication: Arc<Replication>,
        clock: SharedClock,
        random: SharedRandom,
        told: Told,
    ) -> Self {
        let instance = random.u128();
        let reported = HashMap::new();
        Self { config, store, replication, clock, random, told, instance, sequence: 0, reported }
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
        let first = self.report(true, &HashSet::new());
        if reports.send(first).await.is_err() {
            return Ended::Closed;
        }
        let opened = tokio::select! {
            () = stopping(stopped) => return Ended::Stopping,
            opened = wire::open(master, outgoing) => opened,
        };
        let mut commands = match opened {
            Ok(commands) => commands,
            Err(failure) => return Ended::Refused(failure),
        };
        let mut ticks = tokio::time::interval(HEARTBEAT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut quiet_since = self.clock.monotonic();
        let replication = self.replication.clone();
        loop {
            let report = tokio::select! {
                () = stopping(stopped) => return Ended::Stopping,
                command = commands.next() => {
                    quiet_since = self.clock.monotonic();
                    match command {
                        None => return Ended::Closed,
                        Some(Err(failure)) => return Ended::Refused(failure),
                        Some(Ok(command)) => self.obey(command, stopped).await,
                    }
                }
                _ = ticks.tick() => {
                    if self.clock.monotonic().saturating_sub(quiet_since) > HEARTBEAT_TIMEOUT {
                        return Ended::Silent;
                    }
                    Some(self.report(false, &HashSet::new()))
                }
                // A replica failed, or a volume is filled: the masters should not hear of it a second later.
                () = replication.news.notified() => Some(self.report(false, &HashSet::new())),
            };
            if let Some(report) = report
                && reports.send(report).await.is_err()
            {
                return Ended::Closed;
            }
        }
    }

    /// Does what a command says; gives what to report at once.
    async fn obey(&mut self, command: Command, stopped: &watch::Receiver<bool>) -> Option<Report> {
        self.told.refused.send_if_modified(|refused| refused.take().is_some());
        self.told.heard.send_replace(Some(self.clock.monotonic()));
        let volume = match command {
            Command::Acknowledge => return None,
            Command::FullReport => return Some(self.report(true, &HashSet::new())),
            Command::Create { volume, epoch, class, members } => {
                self.done(volume, "create", move |own| own.create(volume, epoch, class, &members)).await;
                volume
            }
            Command::Confirm(confirmations) => return self.confirm(confirmations).await,
            Command::Fill(fill) => {
                self.replication.fill(fill, stopped.clone());
                return None;
            }
            Command::Seal { volume, epoch } => {
                self.done(volume, "seal", move |own| own.store().seal(volume, epoch)).await;
                volume
            }
        };
        Some(self.report(false, &HashSet::from([volume])))
    }

    /// Takes in what the map says; gives the volumes that it changed here.
    async fn confirm(&mut self, confirmations: Vec<Confirmation>) -> Option<Report> {
        let replication = self.replication.clone();
        // A volume that was sealed while this server was away takes its epoch now, durably.
        let taken = self.store.blocking(move || {
            for confirmation in &confirmations {
                if let Err(error) = replication.confirm(confirmation) {
                    let volume = confirmation.volume;
                    tracing::error!(%volume, %error, "what the map says of the volume could not be done");
                }
            }
        });
        if taken.await.is_err() {
            tracing::error!("taking in what the map says met a fault in the program");
        }
        let report = self.report(false, &HashSet::new());
        (!report.volumes.is_empty()).then_some(report)
    }

    async fn done(
        &self,
        volume: VolumeId,
        what: &'static str,
        work: impl FnOnce(&Replication) -> Result<(), StoreError> + Send + 'static,
    ) {
        let replication = self.replication.clone();
        match self.store.blocking(move || work(&replication)).await {
            Ok(Ok(())) => tracing::info!(%volume, what, "done as a master said"),
            // The report that follows shows that it was not done; the master says it again.
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%volume, what, %error, cause, "a master's command failed");
            }
            Err(_) => tracing::error!(%volume, what, "a master's command met a fault in the program"),
        }
    }

    /// All volumes, or those that have changed and those in `named`.
    fn report(&mut self, full: bool, named: &HashSet<VolumeId>) -> Report {
        let infos = self.replication.infos();
        let digest = hay_common::model::volumes_digest(infos.iter().map(|i| (i.id, i.epoch, i.state)));
        let removed = if full { Vec::new() } else { self.gone(&infos) };
        let volumes = infos.iter().filter_map(|info| {
            let before = self.reported.get(&info.id);
            let is_due = full || named.contains(&info.id) || before != Some(info);
            // The store counts since the volume was opened, a report since the last one.
            let reads = info.reads.saturating_sub(before.map_or(0, |b| b.reads));
            is_due.then(|| VolumeInfo { reads, ..info.clone() })
        });
        let volumes = volumes.collect();
        self.reported = infos.into_iter().map(|info| (info.id, info)).collect();
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
            removed,
            space: self.store.space(),
            digest,
            sequence: self.sequence,
            instance: self.instance,
        }
    }

    fn gone(&self, infos: &[VolumeInfo]) -> Vec<VolumeId> {
        let there: HashSet<VolumeId> = infos.iter().map(|i| i.id).collect();
        self.reported.keys().copied().filter(|id| !there.contains(id)).collect()
    }
}
