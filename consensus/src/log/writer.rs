//! The one owner that writes the log: a thread.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hay_common::disk::SharedDisk;
use hay_common::ids::ClusterId;
use hay_common::limits::LOG_SEGMENTS_SPARE;
use hay_common::model::Durability;
use hay_common::work::Orders;
use openraft::storage::LogFlushed;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::room::Room;
use crate::types::{LogId, Types, Vote};

use super::hard_state::{HardState, HardStateFile};
use super::index::{LogIndex, Place};
use super::prepare::{Order, Preparer};
use super::record::{HEADER_BYTES, Header, record_bytes};
use super::segment::{self, FIRST_RECORD, Segment};

/// What the log must be told.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    pub(crate) dir: PathBuf,
    pub(crate) cluster: ClusterId,
    pub(crate) name: String,
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
}

/// Work since the start.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// What recovery found.
pub(crate) struct Opened {
    pub(crate) hard: HardStateFile,
    pub(crate) index: LogIndex,
    /// From the oldest with entries to the one that is appended to. Never empty.
    pub(crate) live: Vec<Arc<Segment>>,
    pub(crate) prepared: Option<Arc<Segment>>,
    pub(crate) spares: Vec<PathBuf>,
    /// Where the next record goes.
    pub(crate) end: u64,
    pub(crate) max_generation: u64,
    pub(crate) committed: Option<u64>,
}

/// What readers, the consensus and the writer thread share.
pub(crate) struct Shared {
    pub(crate) index: Mutex<LogIndex>,
    pub(crate) vote: Mutex<Option<Vote>>,
    /// Rides in the next record: knowing it later is enough, so it costs no sync of its own.
    pub(crate) committed: Mutex<Option<LogId>>,
    pub(crate) counters: LogCounters,
    pub(crate) room: Arc<Room>,
}

/// A data block to be written, and the entry it belongs to.
pub(crate) struct NewRecord {
    pub(crate) id: LogId,
    pub(crate) data: Vec<u8>,
}

pub(crate) enum Request {
    Append(Vec<NewRecord>, LogFlushed<Types>),
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    Truncate(u64, oneshot::Sender<io::Result<()>>),
    Purge(LogId, oneshot::Sender<io::Result<()>>),
    /// Makes durable what is not, where appends don't wait for it.
    Sync,
    Stop,
}

/// The way to the log's writer, and what is shared with it.
#[derive(Clone)]
pub(crate) struct LogHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) disk: SharedDisk,
    requests: Orders<Request>,
}

impl LogHandle {
    pub(crate) fn start(
        config: LogConfig,
        opened: Opened,
        preparer: Preparer,
        disk: SharedDisk,
    ) -> io::Result<Self> {
        let committed = opened.committed.and_then(|index| opened.index.id(index)).or(opened.index.purged);
        let shared = Arc::new(Shared {
            vote: Mutex::new(opened.hard.get().vote),
            index: Mutex::new(opened.index),
            committed: Mutex::new(committed),
            counters: LogCounters::default(),
            room: Arc::default(),
        });
        let name = format!("{}-log", config.name);
        let mut writer = Writer {
            config,
            hard: opened.hard,
            shared: shared.clone(),
            live: opened.live.into(),
            prepared: opened.prepared,
            ordered: None,
            spares: opened.spares,
            preparer,
            end: opened.end,
            synced: opened.end,
            max_generation: opened.max_generation,
            failed: None,
        };
        writer.trim_spares();
        writer.order_next();
        let requests = Orders::to(&disk, name, || Request::Stop, move |request| writer.carry_out(request))?;
        Ok(Self { shared, disk, requests })
    }

    pub(crate) fn send(&self, request: Request) -> io::Result<()> {
        self.requests.give(request).map_err(|_| stopped())
    }

    /// In a simulation what was sent is done when this returns: for those who would wait for it on the same thread.
    pub(crate) fn catch_up(&self) {
        self.requests.catch_up();
    }

    /// Ends the writer after what it was asked before. Blocks.
    pub(crate) fn stop(&self) {
        self.shared.room.close();
        if self.requests.end(Request::Stop).is_err() {
            tracing::error!("the log's writer panicked");
        }
    }
}

pub(crate) fn stopped() -> io::Error {
    io::Error::other("the log's writer has stopped")
}

struct Writer {
    config: LogConfig,
    hard: HardStateFile,
    shared: Arc<Shared>,
    /// The last one is appended to.
    live: VecDeque<Arc<Segment>>,
    prepared: Option<Arc<Segment>>,
    /// The segment that is being prepared.
    ordered: Option<Order>,
    spares: Vec<PathBuf>,
    preparer: Preparer,
    end: u64,
    /// Bytes of the last segment that are durable.
    synced: u64,
    max_generation: u64,
    /// What went wrong: from then on nothing is written. A failed sync is never tried again.
    failed: Option<String>,
}

impl Writer {
    fn carry_out(&mut self, request: Request) -> ControlFlow<()> {
        match request {
            Request::Append(records, flushed) => {
                flushed.log_io_completed(self.guarded(|writer| writer.append(&records)));
            }
            Request::Vote(vote, done) => answer(done, self.guarded(|writer| writer.save_vote(vote))),
            Request::Truncate(index, done) => answer(done, self.guarded(|writer| writer.truncate(index))),
            Request::Purge(upto, done) => answer(done, self.guarded(|writer| writer.purge(upto))),
            Request::Sync => {
                // What fails here is remembered, and answers the next append.
                let _ = self.guarded(Self::sync);
            }
            Request::Stop => {
                let _ = self.guarded(Self::sync);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some(why) = &self.failed {
            return Err(io::Error::other(format!("the log failed before: {why}")));
        }
        work(self).inspect_err(|error| {
            tracing::error!(dir = %self.config.dir.display(), %error, "the log failed; this member stops");
            self.failed = Some(error.to_string());
        })
    }

    fn active(&self) -> io::Result<&Arc<Segment>> {
        self.live.back().ok_or_else(|| io::Error::other("the log has no segment"))
    }

    /// Makes a changed hard state durable. A full disk is waited out: each try writes a file of its own, and what was stands
    /// until one is whole.
    fn change(&mut self, change: impl Fn(&mut HardState)) -> io::Result<()> {
        let hard = &mut self.hard;
        self.shared.room.retry(&self.config.dir, || hard.change(&change))
    }

    fn save_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.change(|state| state.vote = Some(vote))?;
        *self.shared.vote.lock() = Some(vote);
        Ok(())
    }

    fn append(&mut self, records: &[NewRecord]) -> io::Result<()> {
        let Some(first) = records.first().map(|r| r.id.index) else { return Ok(()) };
        let mut places = Vec::with_capacity(records.len());
        let mut rest = records;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.fitting(rest)?);
            self.write(now, &mut places)?;
            if !later.is_empty() {
                self.rotate()?;
            }
            rest = later;
        }
        if self.config.durability == Durability::Sync {
            self.sync()?;
        }
        self.shared.index.lock().written(first, places);
        Ok(())
    }

    /// How many of `records` go into the active segment; 0 says that it is full. An empty one takes one of any size.
    fn fitting(&self, records: &[NewRecord]) -> io::Result<usize> {
        let capacity = self.active()?.capacity;
        let mut end = self.end;
        let fitting = records.iter().take_while(|record| {
            end += record_bytes(record.data.len());
            end <= capacity
        });
        let count = fitting.count();
        Ok(if self.end == FIRST_RECORD { count.max(1) } else { count })
    }

    fn write(&mut self, records: &[NewRecord], places: &mut Vec<Place>) -> io::Result<()> {
        const PADDING: [u8; 8] = [0; 8];
        if records.is_empty() {
            return Ok(());
        }
        let segment = self.active()?.clone();
        let committed = self.shared.committed.lock().map(|id| id.index);
        let headers: Vec<[u8; HEADER_BYTES]> = records
            .iter()
            .map(|record| {
                let header = Header {
                    generation: segment.generation,
                    index: record.id.index,
                    term: record.id.leader_id.term,
                    leader: record.id.leader_id.node_id,
                    synced: self.synced,
                    committed,
                    length: record.data.len() as u32,
                    data_crc: crc32c::crc32c(&record.data),
                };
                header.encode()
            })
            .collect();
        let mut parts = Vec::with_capacity(records.len() * 3);
        let mut end = self.end;
        for (record, header) in records.iter().zip(&headers) {
            let bytes = record_bytes(record.data.len());
            let padding = usize::try_from(bytes).unwrap_or(0) - HEADER_BYTES - record.data.len();
            parts.extend([IoSlice::new(header), IoSlice::new(&record.data)]);
            parts.push(IoSlice::new(PADDING.get(..padding).unwrap_or_default()));
            places.push(Place { segment: segment.clone(), offset: end, length: record.data.len() as u32 });
            end += bytes;
        }
        self.make_room(&segment, end)?;
        segment.file.write_all_at(&parts, self.end)?;
        self.shared.counters.bytes.fetch_add(end - self.end, Ordering::Relaxed);
        self.end = end;
        Ok(())
    }

    /// A record that is larger than an empty segment makes it grow. Zeros go first: where there is no room for them, nothing
    /// of the record has been written yet.
    fn make_room(&self, segment: &Segment, end: u64) -> io::Result<()> {
        if end <= segment.capacity {
            return Ok(());
        }
        self.shared.room.retry(&self.config.dir, || segment.file.zero_ahead(segment.capacity, end))
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.synced < self.end {
            self.active()?.file.sync_data()?;
            self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("hay_raft_log_syncs_total", "group" => self.config.name.clone()).increment(1);
            metrics::counter!("hay_raft_log_bytes_total", "group" => self.config.name.clone())
                .increment(self.end - self.synced);
            self.synced = self.end;
        }
        Ok(())
    }

    /// Goes on in the next segment. What stands in this one is durable first, so that a gap between segments is
    /// always damage.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let next = match self.prepared.take() {
            Some(segment) => segment,
            None => Arc::new(self.take_ordered()?),
        };
        self.live.push_back(next);
        self.end = FIRST_RECORD;
        self.synced = FIRST_RECORD;
        self.order_next();
        Ok(())
    }

    /// Waits for the segment that was ordered. A failure may be old (the disk was full for a moment, an hour ago): it is
    /// ordered once more before it counts. A full disk is waited out: nothing of what is to be written has been, and the
    /// group goes on without this member, or refuses commands where it is the only one.
    fn take_ordered(&mut self) -> io::Result<Segment> {
        let order = self.ordered.take().ok_or_else(|| io::Error::other("no log segment was ordered"))?;
        let first = self.preparer.take().or_else(|error| {
            tracing::warn!(dir = %self.config.dir.display(), %error, "the next log segment was not prepared; trying again");
            self.preparer.order(order.clone());
            self.preparer.take()
        });
        let mut first = Some(first);
        self.shared.room.retry(&self.config.dir, || {
            first.take().unwrap_or_else(|| {
                self.preparer.order(order.clone());
                self.preparer.take()
            })
        })
    }

    fn order_next(&mut self) {
        if self.prepared.is_some() || self.ordered.is_some() {
            return;
        }
        self.max_generation += 1;
        let current = self.live.back().map_or(0, |segment| segment.capacity);
        let bytes = current.saturating_mul(4).min(self.config.segment_bytes);
        let order = Order { generation: self.max_generation, bytes, spare: self.spares.pop() };
        self.preparer.order(order.clone());
        self.ordered = Some(order);
    }

    /// Removes the entries from `index` on. The intention is durable first: whatever a crash leaves of the work is
    /// finished at the next start.
    fn truncate(&mut self, index: u64) -> io::Result<()> {
        let Some(place) = self.shared.index.lock().place(index) else { return Ok(()) };
        self.change(|state| state.truncating_from = Some(index))?;
        let mut dirty_end = self.end;
        while let Some(last) = self.live.back()
            && last.generation > place.segment.generation
        {
            let last = last.clone();
            self.live.pop_back();
            self.set_aside(&last)?;
            dirty_end = place.segment.file.len()?;
        }
        self.hard.disk().sync_dir(&self.config.dir)?;
        place.segment.file.zero_ahead(place.offset, dirty_end)?;
        self.end = place.offset;
        self.synced = place.offset;
        self.shared.index.lock().truncate(index);
        self.change(|state| state.truncating_from = None)?;
        self.trim_spares();
        Ok(())
    }

    /// Gives up the entries up to `upto`, and segments that hold no other.
    fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.change(|state| state.purged = state.purged.max(Some(upto)))?;
        let (jumped, oldest) = {
            let mut index = self.shared.index.lock();
            let jumped = index.last().is_none_or(|last| last.index < upto.index);
            index.purge(upto);
            (jumped, if index.is_empty() { None } else { index.oldest_generation() })
        };
        if jumped && self.end > FIRST_RECORD {
            self.rotate()?;
        }
        let keep = oldest.or(self.live.back().map(|segment| segment.generation)).unwrap_or(u64::MAX);
        let mut any = false;
        while self.live.len() > 1
            && let Some(first) = self.live.front().filter(|segment| segment.generation < keep).cloned()
        {
            self.live.pop_front();
            self.set_aside(&first)?;
            any = true;
        }
        if any {
            self.hard.disk().sync_dir(&self.config.dir)?;
        }
        self.trim_spares();
        Ok(())
    }

    fn set_aside(&mut self, segment: &Segment) -> io::Result<()> {
        let spare = self.config.dir.join(segment::spare_name(segment.generation));
        self.hard.disk().rename(&segment.path, &spare)?;
        self.spares.push(spare);
        Ok(())
    }

    /// The greatest generations stay: no generation may ever be given twice.
    fn trim_spares(&mut self) {
        self.spares.sort();
        while self.spares.len() > LOG_SEGMENTS_SPARE {
            self.preparer.remove(self.spares.remove(0));
        }
    }
}

fn answer(done: oneshot::Sender<io::Result<()>>, result: io::Result<()>) {
    // Who asked may be gone with the consensus.
    let _ = done.send(result);
}
