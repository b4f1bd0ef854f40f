//! Where each entry stands, and the newest entries themselves.

use std::collections::VecDeque;
use std::sync::Arc;

use hay_common::limits::LOG_CACHE_BYTES;

use crate::types::{Entry, LogId};

use super::segment::Segment;

/// Where an entry's record stands.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Bytes of data.
    pub(crate) length: u32,
}

struct Slot {
    id: LogId,
    /// `None` until it is written.
    place: Option<Place>,
}

/// An entry as a reader finds it.
pub(crate) enum Located {
    InMemory(Entry),
    OnDisk(LogId, Place),
}

/// The entries between the purged position and the end.
#[derive(Default)]
pub(crate) struct LogIndex {
    pub(crate) purged: Option<LogId>,
    slots: VecDeque<Slot>,
    /// The newest entries with their bytes, ending at the last slot.
    cache: VecDeque<(Entry, usize)>,
    cache_bytes: usize,
}

impl LogIndex {
    pub(crate) fn new(purged: Option<LogId>, places: Vec<(LogId, Place)>) -> Self {
        let slots = places.into_iter().map(|(id, place)| Slot { id, place: Some(place) }).collect();
        Self { purged, slots, ..Self::default() }
    }

    /// The last entry's id, or the purged one where no entry is left.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.purged)
    }

    /// The id of an entry, also of the one purged last.
    pub(crate) fn id(&self, index: u64) -> Option<LogId> {
        match self.purged {
            Some(purged) if purged.index == index => Some(purged),
            _ => self.position(index).and_then(|at| self.slots.get(at)).map(|slot| slot.id),
        }
    }

    fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.id.index)
    }

    fn position(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.first()?)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    /// Adds an entry that is not written yet. Readers find it at once.
    pub(crate) fn push(&mut self, entry: Entry, bytes: usize) {
        self.slots.push_back(Slot { id: entry.log_id, place: None });
        self.cache_bytes += bytes;
        self.cache.push_back((entry, bytes));
    }

    /// Notes where entries from `first` on were written, and lets old entries go from memory.
    pub(crate) fn written(&mut self, first: u64, places: Vec<Place>) {
        if let Some(at) = self.position(first) {
            for (slot, place) in self.slots.range_mut(at..).zip(places) {
                slot.place = Some(place);
            }
        }
        while self.cache_bytes > LOG_CACHE_BYTES {
            let oldest = self.slots.len().saturating_sub(self.cache.len());
            // What is not on disk yet is nowhere else.
            if self.slots.get(oldest).is_none_or(|slot| slot.place.is_none()) {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, bytes)) = self.cache.pop_front() {
            self.cache_bytes -= bytes;
        }
    }

    /// The entries of a range that are there, until `bytes_max` is passed; at least one where there is one.
    pub(crate) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Located> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let first = from.max(self.first().unwrap_or(u64::MAX));
        let uncached = self.slots.len().saturating_sub(self.cache.len());
        for index in first..to {
            let Some(at) = self.position(index) else { break };
            let Some(slot) = self.slots.get(at) else { break };
            let (item, size) = match at.checked_sub(uncached).and_then(|at| self.cache.get(at)) {
                Some((entry, size)) => (Located::InMemory(entry.clone()), *size),
                None => match &slot.place {
                    Some(place) => (Located::OnDisk(slot.id, place.clone()), place.length as usize),
                    None => break,
                },
            };
            bytes += size;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(item);
        }
        found
    }

    /// Where an entry stands, if it is written.
    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        self.position(index).and_then(|at| self.slots.get(at)).and_then(|slot| slot.place.clone())
    }

    /// Whether an entry is still there.
    pub(crate) fn holds(&self, id: LogId) -> bool {
        self.position(id.index).and_then(|at| self.slots.get(at)).is_some_and(|slot| slot.id == id)
    }

    /// Forgets the entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.slots.back().is_some_and(|slot| slot.id.index >= index) {
            self.slots.pop_back();
            if let Some((_, bytes)) = self.cache.pop_back() {
                self.cache_bytes -= bytes;
            }
        }
    }

    /// Forgets the entries up to `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.slots.front().is_some_and(|slot| slot.id.index <= upto.index) {
            if self.cache.len() == self.slots.len() {
                self.forget_oldest();
            }
            self.slots.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// The least generation that still holds an entry.
    pub(crate) fn oldest_generation(&self) -> Option<u64> {
        self.slots.front().and_then(|slot| slot.place.as_ref()).map(|place| place.segment.generation)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
