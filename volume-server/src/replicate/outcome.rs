//! How fills go: what could not be got, why, and when to try again.

use std::collections::BTreeMap;
use std::time::Duration;

use hay_common::error::{ErrorCode, Failure};
use hay_common::ids::{Epoch, VolumeId};
use hay_common::limits::{FILL_AGAIN_MAX, FILL_UNREAD_MAX, HEARTBEAT_COMMAND_AGAIN};

use crate::grpc::copy::Name;
use crate::store::{AppendError, StoreError};

/// Needles that are named to people.
const NAMED_MAX: usize = 3;

#[derive(Debug, thiserror::Error)]
pub(super) enum FillError {
    #[error("{0}: {cause}", cause = std::error::Error::source(.0).map(ToString::to_string).unwrap_or_default())]
    Store(#[from] StoreError),
    #[error("a needle could not be stored: {0}")]
    Append(#[from] AppendError),
    #[error("not all of its sources could be copied from: {0}")]
    NoSource(String),
    #[error("{0} needles could not be read now, the first because: {1}")]
    Unread(usize, String),
    #[error("a thread of the program failed")]
    Thread,
}

impl FillError {
    /// Whether another server might do better with the same sources.
    fn is_own(&self) -> bool {
        !matches!(self, Self::NoSource(_) | Self::Unread(..))
    }
}

/// How the fills of one volume went, in the epoch of the last one.
#[derive(Debug, Default)]
pub(super) struct Filled {
    epoch: Epoch,
    /// For people.
    pub problem: Option<String>,
    /// Failures in a row that were this server's.
    pub own_failures: u32,
    failures: u32,
    /// How often needles could not be read, though their sources answered.
    pub unread: u32,
    /// Not begun again before, on the monotonic clock.
    again_from: Duration,
}

impl Filled {
    /// Of the epoch of a fill that begins: what went before in another one says nothing of it.
    pub fn begin(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            *self = Self { epoch, ..Self::default() };
        }
    }

    /// Whether a fill of that epoch should be begun now: it may have failed a moment ago, and masters ask again and again.
    pub fn is_due(&self, epoch: Epoch, now: Duration) -> bool {
        self.epoch != epoch || self.again_from <= now
    }

    /// Takes in how it ended: with what could not be got, or not at all.
    pub fn ended(&mut self, ended: Result<Option<String>, FillError>, now: Duration) {
        match ended {
            Ok(problem) => {
                *self = Self { epoch: self.epoch, problem, ..Self::default() };
            }
            Err(error) => {
                self.failures += 1;
                self.own_failures = if error.is_own() { self.own_failures + 1 } else { 0 };
                self.unread += u32::from(matches!(error, FillError::Unread(..)));
                let pause = HEARTBEAT_COMMAND_AGAIN * (1 << (self.failures - 1).min(10));
                self.again_from = now + pause.min(FILL_AGAIN_MAX);
                self.problem = Some(format!("it could not be filled yet: {error}"));
            }
        }
    }
}

/// What is under way.
pub(super) struct Work {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub copied: u64,
    /// Needles that a source could not give, and why where that may pass.
    pub unread: BTreeMap<Name, Option<String>>,
    /// There were more of them than are remembered.
    pub and_more: bool,
}

impl Work {
    pub fn new(volume: VolumeId, epoch: Epoch) -> Self {
        Self { volume, epoch, copied: 0, unread: BTreeMap::new(), and_more: false }
    }

    pub fn could_not_read(&mut self, name: Name, failure: &Failure) {
        let (volume, code) = (self.volume, failure.code);
        tracing::warn!(%volume, key = %name.0, %code, message = failure.message, "a needle could not be read from a source");
        let passing = match code {
            ErrorCode::Corrupt | ErrorCode::NotFound | ErrorCode::DigestMismatch => None,
            _ => Some(failure.message.clone()),
        };
        if self.unread.len() < FILL_UNREAD_MAX || self.unread.contains_key(&name) {
            let known = self.unread.entry(name).or_default();
            *known = known.take().or(passing);
        } else {
            self.and_more = true;
        }
    }

    /// In words, what nobody could give.
    pub fn lacking(&self) -> String {
        let more = if self.and_more { "more than " } else { "" };
        let name = |(key, cookie, _): &Name| format!("{key}/{:08x}", cookie.0);
        let named: Vec<String> = self.unread.keys().take(NAMED_MAX).map(name).collect();
        let count = self.unread.len();
        format!("{more}{count} needles can't be read from any source, the first: {}", named.join(", "))
    }
}
