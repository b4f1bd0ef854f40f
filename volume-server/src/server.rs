//! The core of a volume server: its store, who may append, its background tasks, its end.

use std::sync::Arc;
use std::time::Duration;

use hay_client::Peers;
use hay_common::clock::SharedClock;
use hay_common::disk::SharedDisk;
use hay_common::ids::NodeId;
use hay_common::limits::{
    APPEND_STREAMS_BYTES_MAX, FREE_SPACE_CHECK, HEARTBEAT_TIMEOUT, READ_BATCHES_BYTES_MAX,
    READ_STREAMS_BYTES_MAX,
};
use hay_common::random::SharedRandom;
use hay_common::work;
use hay_proto::rpc::DynMaster;
use hay_proto::rpc::credential::PublicKey;
use hay_proto::rpc::lease::LeaseVerifier;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::heartbeat::{Heartbeat, Told};
use crate::orders::Orders;
use crate::replicate::Replication;
use crate::store::{Store, StoreConfig, StoreError};

/// What a volume server is told.
#[derive(Debug, Clone)]
pub struct VolumeServerConfig {
    /// Its volumes.
    pub store: StoreConfig,
    /// Where other parts reach it.
    pub address: String,
    /// Where it stands, for placement; empty where nobody said.
    pub rack: String,
    /// Likewise.
    pub zone: String,
    /// What its disk is: `hot`, `warm` or `cold`.
    pub tier: String,
}

/// What comes in from outside.
pub struct Deps {
    /// The disk.
    pub disk: SharedDisk,
    /// The clock.
    pub clock: SharedClock,
    /// Randomness, for ids.
    pub random: SharedRandom,
    /// The public half of the key that signs write leases.
    pub lease_key: PublicKey,
    /// Reaches the masters as the volume server of that id, which is known only once its directory is open.
    pub master: Box<dyn FnOnce(NodeId) -> DynMaster + Send>,
    /// Reaches other volume servers as the volume server of that id.
    pub peers: Box<dyn FnOnce(NodeId) -> Peers + Send>,
}

/// Why a volume server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its directory can't be used.
    #[error("the volumes can't be opened")]
    Store(#[source] StoreError),
    /// A background thread is gone.
    #[error("a thread of the program failed while the volumes were opened")]
    Thread,
}

/// A running volume server. Implements the volume service.
pub struct VolumeServer {
    pub(crate) store: Arc<Store>,
    pub(crate) replication: Arc<Replication>,
    pub(crate) leases: LeaseVerifier,
    pub(crate) clock: SharedClock,
    /// Bytes that append streams may hold.
    pub(crate) append_budget: Arc<Semaphore>,
    /// Bytes that streams from other replicas may hold.
    pub(crate) replica_budget: Arc<Semaphore>,
    /// Bytes that read streams may hold; those that get none read in parts.
    pub(crate) read_budget: Arc<Semaphore>,
    /// Bytes that batched reads may hold. Not those of the streams: whose readers may stall for minutes.
    pub(crate) batch_budget: Arc<Semaphore>,
    /// When a master last answered, on the monotonic clock.
    heard: watch::Receiver<Option<Duration>>,
    /// Why the masters refuse this server, where they do.
    refused: watch::Receiver<Option<String>>,
    stop: watch::Sender<bool>,
    /// A task that must go on until the server stops has ended.
    ended: watch::Receiver<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl VolumeServer {
    /// Opens the directory, recovers its volumes and starts reporting to the masters.
    ///
    /// # Errors
    /// A directory that is in use, another cluster's, or not whole.
    pub async fn start(config: VolumeServerConfig, deps: Deps) -> Result<Arc<Self>, StartError> {
        let Deps { disk, clock, random, lease_key, master, peers } = deps;
        let (own_clock, own_random, store_config) = (clock.clone(), random.clone(), config.store.clone());
        let (cluster, on) = (config.store.cluster, disk.clone());
        let opening = move || Store::open(store_config, disk, own_clock, own_random);
        let store = work::blocking(on.as_ref(), opening).await.map_err(|_| StartError::Thread)?;
        let store = Arc::new(store.map_err(StartError::Store)?);
        let (stop, stopped) = watch::channel(false);
        let (hears, heard) = watch::channel(None);
        let (refuses, refused) = watch::channel(None);
        let replication = Replication::new(store.clone(), peers(store.node()), clock.clone(), heard.clone());
        let told = Told { heard: hears, refused: refuses };
        let orders = Orders::new(replication.clone());
        let own = (store.clone(), replication.clone(), orders.clone());
        let heartbeat = Heartbeat::new(config, own, clock.clone(), random, told);
        let master = master(store.node());
        let (ends, ended) = watch::channel(false);
        let tasks = vec![
            spawn(&ends, heartbeat.run(master, stopped.clone())),
            spawn(&ends, orders.run(stopped.clone())),
            spawn(&ends, watch_space(store.clone(), stopped)),
        ];
        Ok(Arc::new(Self {
            store,
            replication,
            leases: LeaseVerifier::new(cluster, lease_key),
            clock,
            append_budget: Arc::new(Semaphore::new(APPEND_STREAMS_BYTES_MAX)),
            replica_budget: Arc::new(Semaphore::new(APPEND_STREAMS_BYTES_MAX)),
            read_budget: Arc::new(Semaphore::new(READ_STREAMS_BYTES_MAX)),
            batch_budget: Arc::new(Semaphore::new(READ_BATCHES_BYTES_MAX)),
            heard,
            refused,
            stop,
            ended,
            tasks: Mutex::new(tasks),
        }))
    }

    /// This server's id.
    pub fn node(&self) -> NodeId {
        self.store.node()
    }

    /// The volumes, for tools in the same process.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Whether it can do its work.
    ///
    /// # Errors
    /// Says what it lacks.
    pub fn ready(&self) -> Result<(), String> {
        if *self.ended.borrow() {
            return Err("a task of this server has ended".to_owned());
        }
        if let Some(reason) = &*self.refused.borrow() {
            return Err(format!("the masters refuse this server: {reason}"));
        }
        let Some(heard) = *self.heard.borrow() else { return Err("no master has answered yet".to_owned()) };
        let ago = self.clock.monotonic().saturating_sub(heard);
        if ago > HEARTBEAT_TIMEOUT {
            return Err(format!("no master has answered for {} s", ago.as_secs()));
        }
        if !self.store.has_room() {
            return Err("the disk is full up to its reserve".to_owned());
        }
        Ok(())
    }

    /// Resolves when the server can't do its work any more, because one of its tasks has ended: by a fault, or because it
    /// was told to stop. Without its heartbeat it would look dead to the masters and serve on for ever.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            // Without senders all have ended.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Stops reporting, finishes the appends that wait, syncs and writes checkpoints. Repeatable.
    pub async fn shutdown(&self) {
        // Without receivers the tasks have ended already.
        let _ = self.stop.send(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of the volume server had failed");
            }
        }
        let store = self.store.clone();
        if self.store.blocking(move || store.close()).await.is_err() {
            tracing::error!("closing the volumes failed; the next start recovers them");
        }
    }
}

/// A task whose end is told, however it ends.
fn spawn(ends: &watch::Sender<bool>, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    struct Ends(watch::Sender<bool>);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.0.send_replace(true);
        }
    }
    let ends = Ends(ends.clone());
    tokio::spawn(async move {
        let _ends = ends;
        task.await;
    })
}

async fn watch_space(store: Arc<Store>, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(FREE_SPACE_CHECK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping(&mut stopped) => return,
            _ = ticks.tick() => {}
        }
        let own = store.clone();
        if store.blocking(move || own.refresh_space()).await.is_err() {
            tracing::error!("looking at free space failed");
        }
    }
}

/// Returns when the server stops, or is gone.
pub(crate) async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // Its guard must not live on in a select.
    let _ = stopped.wait_for(|stop| *stop).await;
}
