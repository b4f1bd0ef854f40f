//! The log as openraft sees it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use hay_common::disk::read_exact_at;
use hay_common::limits::{LOG_ENTRIES_SENT_BYTES, LOG_RECORD_BYTES_MAX};
use hay_common::work;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{oneshot, watch};

use crate::apply::Reached;
use crate::types::{Entry, LogId, StorageError, Types, Vote};

use super::index::{Located, Place};
use super::payload;
use super::record::{Found, HEADER_BYTES, Header};
use super::writer::{LogHandle, NewRecord, Request, stopped};

/// The log as openraft sees it, and a reader of it.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) log: LogHandle,
    /// How far the state is. `None`: a log without a state, as openraft's own tests have it, purges what it is told to.
    pub(crate) reached: Option<watch::Receiver<Reached>>,
}

impl LogStore {
    async fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        let located = self.log.shared.index.lock().read(from, to, bytes_max);
        if located.iter().all(|l| matches!(l, Located::InMemory(_))) {
            let in_memory = |l| match l {
                Located::InMemory(entry) => Some(entry),
                Located::OnDisk(..) => None,
            };
            return Ok(located.into_iter().filter_map(in_memory).collect());
        }
        let log = self.log.clone();
        let read = work::blocking(self.log.disk.as_ref(), move || read_blocking(&log, located)).await;
        match read.map_err(|e| StorageIOError::read_logs(AnyError::new(&e)))? {
            Ok(entries) => Ok(entries),
            Err((id, error)) => Err(StorageIOError::read_log_entry(id, AnyError::new(&error)).into()),
        }
    }
}

fn read_blocking(log: &LogHandle, located: Vec<Located>) -> Result<Vec<Entry>, (LogId, io::Error)> {
    let mut entries = Vec::with_capacity(located.len());
    for located in located {
        match located {
            Located::InMemory(entry) => entries.push(entry),
            Located::OnDisk(id, place) => match read_entry(id, &place) {
                Ok(entry) => entries.push(entry),
                // Purged or truncated meanwhile, and its segment used again: no entry is no error.
                Err(_) if !log.shared.index.lock().holds(id) => break,
                Err(error) => return Err((id, error)),
            },
        }
    }
    Ok(entries)
}

fn read_entry(id: LogId, place: &Place) -> io::Result<Entry> {
    let corrupt = |what: &str| {
        let path = place.segment.path.display();
        io::Error::new(io::ErrorKind::InvalidData, format!("{path} at byte {}: {what}", place.offset))
    };
    let mut bytes = vec![0; HEADER_BYTES + place.length as usize];
    read_exact_at(place.segment.file.as_ref(), &mut bytes, place.offset)?;
    let Found::Header(header) = Header::find(&bytes) else { return Err(corrupt("no record is there")) };
    let leader = id.leader_id;
    let wanted = (place.segment.generation, id.index, leader.term, leader.node_id);
    if (header.generation, header.index, header.term, header.leader) != wanted {
        return Err(corrupt("another record is there"));
    }
    let data = Bytes::from(bytes).slice(HEADER_BYTES..);
    if !header.fits(&data) {
        return Err(corrupt("the record's data does not match its checksum"));
    }
    let payload = payload::decode(data).map_err(|e| corrupt(&e.to_string()))?;
    Ok(Entry { log_id: id, payload })
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, LOG_ENTRIES_SENT_BYTES).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let index = self.log.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let failed = |e: io::Error| StorageError::from(StorageIOError::write_vote(AnyError::new(&e)));
        let (done, answer) = oneshot::channel();
        self.log.send(Request::Vote(*vote, done)).map_err(failed)?;
        answer.await.map_err(|_| failed(stopped()))?.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(*self.log.shared.vote.lock())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        *self.log.shared.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(*self.log.shared.committed.lock())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut added = Vec::new();
        for entry in entries {
            let id = entry.log_id;
            let failed = |e: AnyError| StorageError::from(StorageIOError::write_log_entry(id, e));
            let data = payload::encode(&entry.payload).map_err(|e| failed(AnyError::new(&e)))?;
            if data.len() > LOG_RECORD_BYTES_MAX {
                return Err(failed(AnyError::error(format!("an entry of {} bytes", data.len()))));
            }
            if let EntryPayload::Normal(batch) = &entry.payload {
                batch.1.set();
            }
            added.push((entry, data.len()));
            records.push(NewRecord { id, data });
        }
        let mut index = self.log.shared.index.lock();
        added.into_iter().for_each(|(entry, bytes)| index.push(entry, bytes));
        drop(index);
        let sent = self.log.send(Request::Append(records, callback));
        sent.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change(|done| Request::Truncate(log_id.index, done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.until_covered(log_id).await?;
        self.change(|done| Request::Purge(log_id, done)).await
    }
}

impl LogStore {
    /// Waits until the state holds the entries up to `upto`. The library asks for a received snapshot to be installed and
    /// for the log below it to be purged at once, without waiting in between: a crash after the purge and before the
    /// snapshot had its name would leave neither, and a member that can never start again.
    async fn until_covered(&mut self, upto: LogId) -> Result<(), StorageError> {
        let Some(reached) = &mut self.reached else { return Ok(()) };
        let there = reached.wait_for(|reached| match reached {
            Reached::At(last) => *last >= Some(upto),
            Reached::Failed => true,
        });
        match there.await.as_deref() {
            Ok(Reached::At(_)) => Ok(()),
            Ok(Reached::Failed) | Err(_) => {
                let what = format!("the log was to be purged up to {upto}, but the state does not get there");
                Err(StorageIOError::write_logs(AnyError::error(what)).into())
            }
        }
    }

    async fn change(
        &self,
        request: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Request,
    ) -> Result<(), StorageError> {
        let failed = |e: io::Error| StorageError::from(StorageIOError::write_logs(AnyError::new(&e)));
        let (done, answer) = oneshot::channel();
        self.log.send(request(done)).map_err(failed)?;
        answer.await.map_err(|_| failed(stopped()))?.map_err(failed)
    }
}
