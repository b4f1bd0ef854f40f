//! Who holds how much of the upload memory, as a decision without I/O.
//!
//! Three places, each with a limit of its own:
//!
//! - **small**: the first bytes of any body, up to `small_each`. Short bodies never leave it.
//! - **open**: buffers that have outgrown it, taken as bytes arrive.
//! - **slots**: when *open* is full, a body that has more bytes asks for a slot, which covers a whole chunk: what has a
//!   slot needs nothing more to finish its chunk, so half-received chunks can't wait for each other for ever.
//!
//! Memory is held against nobody who delivers. While somebody waits, a body in a slot from which nothing comes goes
//! back to *open* with its bytes, if they fit (it loses nothing); if nothing else helps, the buffer that has been idle
//! longest, beyond `pressure_idle`, is evicted, and before it one that only trickles: who brings a few bytes now and then
//! is never idle, and would hold its place for ever. A sealed buffer (a complete chunk on its way to a volume) is never
//! evicted: it ends by itself.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// The sizes of the places, in bytes unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LedgerLimits {
    /// All small buffers together.
    pub(crate) small_bytes: usize,
    /// One small buffer.
    pub(crate) small_each: usize,
    /// All open buffers together.
    pub(crate) open_bytes: usize,
    /// How many slots there are.
    pub(crate) slots: usize,
    /// Idle this long, a slot is given back while others wait.
    pub(crate) park_idle: Duration,
    /// Idle this long, a buffer may be evicted while others wait.
    pub(crate) pressure_idle: Duration,
    /// How long a body waits for room: those before it may be slow, but not for ever.
    pub(crate) wait_max: Duration,
}

/// One buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HolderId(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Small,
    Open,
    Slot,
}

#[derive(Debug)]
struct Holder {
    place: Place,
    bytes: usize,
    /// What it waits to grow to.
    wanted: Option<usize>,
    idle_since: Option<Duration>,
    /// Since when its client has been below the floor that counts under pressure.
    slow_since: Option<Duration>,
    sealed: bool,
}

/// What changed for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// These may go on.
    pub(crate) granted: Vec<HolderId>,
    /// These have lost their buffer.
    pub(crate) evicted: Vec<HolderId>,
}

/// The one owner of the counts.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: LedgerLimits,
    small_used: usize,
    open_used: usize,
    slots_used: usize,
    holders: HashMap<HolderId, Holder>,
    small_queue: VecDeque<HolderId>,
    large_queue: VecDeque<HolderId>,
    next_id: u64,
}

impl Ledger {
    /// Nobody holds anything.
    pub(crate) fn new(limits: LedgerLimits) -> Self {
        Self {
            limits,
            small_used: 0,
            open_used: 0,
            slots_used: 0,
            holders: HashMap::new(),
            small_queue: VecDeque::new(),
            large_queue: VecDeque::new(),
            next_id: 0,
        }
    }

    /// A buffer of no bytes.
    pub(crate) fn open(&mut self) -> HolderId {
        let id = HolderId(self.next_id);
        self.next_id += 1;
        self.holders.insert(
            id,
            Holder {
                place: Place::Small,
                bytes: 0,
                wanted: None,
                idle_since: None,
                slow_since: None,
                sealed: false,
            },
        );
        id
    }

    /// Asks for a buffer of `to` bytes in all. True: it is granted. False: it waits; a later [`Changes`] says more.
    pub(crate) fn grow(&mut self, id: HolderId, to: usize) -> bool {
        let Some(holder) = self.holders.get_mut(&id) else { return false };
        holder.idle_since = None;
        if to <= holder.bytes {
            return true;
        }
        holder.wanted = Some(to);
        let small = to <= self.limits.small_each && holder.place == Place::Small;
        // Nobody overtakes those who wait, but a slot has all it needs.
        let queue_empty = if small { self.small_queue.is_empty() } else { self.large_queue.is_empty() };
        if (queue_empty || holder.place == Place::Slot) && self.try_grant(id) {
            return true;
        }
        if small {
            self.small_queue.push_back(id)
        } else {
            self.large_queue.push_back(id)
        }
        false
    }

    /// Moves a holder to where its wish fits.
    fn try_grant(&mut self, id: HolderId) -> bool {
        let Some(holder) = self.holders.get_mut(&id) else { return false };
        let Some(wanted) = holder.wanted else { return true };
        let target = match holder.place {
            Place::Slot => Place::Slot,
            Place::Small if wanted <= self.limits.small_each => {
                if self.small_used - holder.bytes + wanted > self.limits.small_bytes {
                    return false;
                }
                Place::Small
            }
            _ => {
                let already = if holder.place == Place::Open { holder.bytes } else { 0 };
                if self.open_used - already + wanted <= self.limits.open_bytes {
                    Place::Open
                } else if self.slots_used < self.limits.slots {
                    Place::Slot
                } else {
                    return false;
                }
            }
        };
        let (from, bytes) = (holder.place, holder.bytes);
        (holder.place, holder.bytes, holder.wanted) = (target, wanted, None);
        self.take_out(from, bytes);
        self.put_in(target, wanted);
        true
    }

    fn take_out(&mut self, place: Place, bytes: usize) {
        match place {
            Place::Small => self.small_used -= bytes,
            Place::Open => self.open_used -= bytes,
            Place::Slot => self.slots_used -= 1,
        }
    }

    fn put_in(&mut self, place: Place, bytes: usize) {
        match place {
            Place::Small => self.small_used += bytes,
            Place::Open => self.open_used += bytes,
            Place::Slot => self.slots_used += 1,
        }
    }

    /// Nothing comes from its client at the moment.
    pub(crate) fn idle(&mut self, id: HolderId, now: Duration) {
        if let Some(holder) = self.holders.get_mut(&id) {
            holder.idle_since.get_or_insert(now);
        }
    }

    /// Bytes came again; `is_slow`: fewer than the floor that counts under pressure.
    pub(crate) fn active(&mut self, id: HolderId, is_slow: bool, now: Duration) {
        if let Some(holder) = self.holders.get_mut(&id) {
            holder.idle_since = None;
            holder.slow_since = is_slow.then(|| holder.slow_since.unwrap_or(now));
        }
    }

    /// Its chunk is complete; from now on it is never evicted.
    pub(crate) fn seal(&mut self, id: HolderId) {
        if let Some(holder) = self.holders.get_mut(&id) {
            (holder.sealed, holder.idle_since, holder.slow_since) = (true, None, None);
        }
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self, id: HolderId) {
        if let Some(holder) = self.holders.remove(&id) {
            self.take_out(holder.place, holder.bytes);
            if holder.wanted.is_some() {
                self.small_queue.retain(|q| *q != id);
                self.large_queue.retain(|q| *q != id);
            }
        }
    }

    /// Whether anybody waits.
    pub(crate) fn has_waiters(&self) -> bool {
        !self.small_queue.is_empty() || !self.large_queue.is_empty()
    }

    /// Lets those go on that can, and makes room for the first who can't. To be called after every release, and now
    /// and then while somebody waits.
    pub(crate) fn settle(&mut self, now: Duration) -> Changes {
        let mut changes = Changes::default();
        self.drain_queue(true, &mut changes);
        while !self.small_queue.is_empty() && self.evict(now, Some(Place::Small), &mut changes) {
            self.drain_queue(true, &mut changes);
        }
        self.drain_queue(false, &mut changes);
        while !self.large_queue.is_empty() && (self.park(now) || self.evict(now, None, &mut changes)) {
            self.drain_queue(false, &mut changes);
        }
        changes
    }

    fn drain_queue(&mut self, small: bool, changes: &mut Changes) {
        loop {
            let queue = if small { &self.small_queue } else { &self.large_queue };
            let Some(first) = queue.front().copied() else { return };
            if !self.try_grant(first) {
                return;
            }
            if small {
                self.small_queue.pop_front()
            } else {
                self.large_queue.pop_front()
            };
            changes.granted.push(first);
        }
    }

    /// Moves one idle body from its slot to open memory.
    fn park(&mut self, now: Duration) -> bool {
        let room = self.limits.open_bytes.saturating_sub(self.open_used);
        let idle = |h: &Holder| h.idle_since.is_some_and(|s| now.saturating_sub(s) >= self.limits.park_idle);
        let found = self
            .holders
            .iter_mut()
            .find(|(_, h)| h.place == Place::Slot && !h.sealed && h.bytes <= room && idle(h));
        let Some((_, holder)) = found else { return false };
        holder.place = Place::Open;
        let bytes = holder.bytes;
        self.slots_used -= 1;
        self.open_used += bytes;
        true
    }

    /// Takes the buffer of one that is slow or idle. `place`: only buffers there; otherwise any that is not small.
    fn evict(&mut self, now: Duration, place: Option<Place>, changes: &mut Changes) -> bool {
        let idle = |h: &Holder| h.idle_since.filter(|s| now.saturating_sub(*s) >= self.limits.pressure_idle);
        let candidates = || {
            let there = |h: &Holder| place.map_or(h.place != Place::Small, |p| h.place == p);
            // One that waits itself is not slow at the moment: it is we who let it wait.
            self.holders
                .iter()
                .filter(move |(_, h)| !h.sealed && h.bytes > 0 && h.wanted.is_none() && there(h))
        };
        let slowest = candidates().filter_map(|(id, h)| Some((h.slow_since?, *id))).min();
        let longest = || candidates().filter_map(|(id, h)| Some((idle(h)?, *id))).min();
        let Some((_, id)) = slowest.or_else(longest) else { return false };
        self.release(id);
        changes.evicted.push(id);
        true
    }

    /// Bytes in all three places; a slot counts what its buffer has.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.holders.values().map(|h| h.bytes).sum()
    }
}

#[cfg(test)]
mod tests;
