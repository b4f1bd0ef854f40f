//! A running filer.

mod background;
mod config;
pub(crate) mod core;
mod space;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{EntryId, PrincipalId, TenantId};
use hay_common::limits::MIB;
use hay_consensus::{Group, GroupConfig, GroupStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::config::{CACHE_SIZE_MB_DEFAULT, FilerConfig, FilerDeps, PathIndexMode};
use self::core::Core;
use self::space::Reserve;
use crate::namespace::command::{Bootstrap, Bootstrapped, Op, Reply, TokenHash};
use crate::store::{self, OpenStoreError};

/// A bootstrap waits so long for a leader, in steps of [`LEADER_PAUSE`].
const LEADER_TRIES: u32 = 100;
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Why a filer did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its metadata.
    #[error("the filer's metadata did not open")]
    Store(#[from] OpenStoreError),
    /// Its replicated log.
    #[error("the filer's log did not start")]
    Consensus(#[from] hay_consensus::StartError),
    /// The thread that opened the metadata.
    #[error("opening the filer's metadata ended early: {0}")]
    Interrupted(String),
}

/// A running filer. Implements the wire's `Filer` trait (see `grpc`).
pub struct Filer {
    pub(crate) core: Arc<Core>,
    pub(crate) config: FilerConfig,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Filer {
    /// Opens or makes the filer's directory and starts its group and its background.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: FilerConfig, deps: FilerDeps) -> Result<Arc<Self>, StartError> {
        let FilerDeps { disk, clock, random } = deps;
        let (machine, reader) = {
            let (dir, disk) = (config.dir.clone(), disk.clone());
            let cache_bytes = config.cache_size_mb.max(1) * MIB;
            tokio::task::spawn_blocking(move || store::open(&dir, cache_bytes, disk))
                .await
                .map_err(|error| StartError::Interrupted(error.to_string()))??
        };
        let mut group = GroupConfig::sole("filer", config.dir.join("raft"), config.cluster);
        group.member = Some(config.member);
        group.address = config.address.clone();
        group.durability = config.durability;
        group.segment_bytes = config.log_segment_bytes;
        let group = Group::start(group, Box::new(machine), disk.clone()).await?;
        let reserve = Reserve::of(disk, config.dir.clone(), config.free_space_reserve_bytes);
        let core = Arc::new(Core {
            group,
            reader,
            clock,
            random,
            reserve,
            ticked: AtomicBool::new(false),
            to_drain: Notify::new(),
        });
        let first_look = core.clone();
        tokio::task::spawn_blocking(move || first_look.reserve.look())
            .await
            .map_err(|error| StartError::Interrupted(error.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let tasks = background::start(&core, &stopped);
        Ok(Arc::new(Self { core, config, stop, tasks: Mutex::new(tasks) }))
    }

    /// Makes tenant `tenant_name` with an administrator behind `token`, durably. What is there already stays: it may
    /// be called at every start.
    ///
    /// # Errors
    /// `invalid_argument` where the name can't be one or the token belongs to another tenant; those of the log.
    pub async fn bootstrap(&self, tenant_name: &str, token: TokenHash) -> Result<Bootstrapped, Failure> {
        let random = &self.core.random;
        let wanted = Bootstrap {
            tenant_name: tenant_name.to_owned(),
            tenant: TenantId::from_random(random.u128()),
            root: EntryId::from_random(random.u128()),
            principal: PrincipalId::from_random(random.u128()),
            token,
        };
        let mut tries = 0;
        loop {
            match self.core.propose(Op::Bootstrap(wanted.clone())).await {
                Ok(Reply::Bootstrapped(done)) => return done,
                Ok(_) => return Err(core::unexpected()),
                Err(failure) if failure.code == ErrorCode::NotLeader && tries < LEADER_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Whether it can do its work.
    ///
    /// # Errors
    /// Says why not.
    pub fn ready(&self) -> Result<(), String> {
        let status = self.core.group.status();
        if let Some(why) = status.stopped {
            return Err(format!("the filer's log has stopped: {why}"));
        }
        if !status.leading {
            return Err("the filer's group has no leader here yet".to_owned());
        }
        if !self.core.ticked.load(Ordering::Acquire) {
            return Err("the filer's log time has not been brought up to date yet".to_owned());
        }
        Ok(())
    }

    /// How its group fares.
    pub fn group_status(&self) -> GroupStatus {
        self.core.group.status()
    }

    /// Comes back once its group has stopped, for whatever reason: nothing can be written or read any more.
    pub async fn gone(&self) {
        self.core.group.gone().await;
    }

    /// Finishes what is in flight and ends.
    ///
    /// # Errors
    /// `unavailable` where the log did not end cleanly. It has ended all the same.
    pub async fn shutdown(&self) -> Result<(), Failure> {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a background task of the filer ended badly");
            }
        }
        self.core
            .group
            .shutdown()
            .await
            .map_err(|error| Failure::new(ErrorCode::Unavailable, error.to_string()))
    }
}
