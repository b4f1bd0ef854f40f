//! Who holds how much of the upload memory, as a decision without I/O.
//!
//! Three places, each with a limit of its own:
//!
//! - **small**: the first bytes of any body, up to `small_each`. Short bodies never leave it.
//! - **open**: buffers that have outgrown it, taken as bytes arrive.
//! - **slots**: when *open* is full, a body that has more bytes asks for a slot, which covers a whole chunk: what has a
//!   slot needs nothing more to finish its chunk, so half-received chunks can't wait for each other for ever.
//!
//! Memory is held against nobody who delivers. While somebody waits, a buffer whose client sends nothing for a moment, or
//! next to nothing, is *set aside*: its bytes go to a file, its memory back, and it loses nothing. A few are on their way
//! there at a time. Where files can't be had (none configured, no room, a failed write, or one that has not come to its
//! end for `pressure_idle`), a body in a slot from which nothing comes goes back to *open* with its bytes, if they fit; if
//! nothing else helps, the buffer that has been idle longest, beyond `pressure_idle`, is evicted, and before it one that
//! only trickles: who brings a few bytes now and then is never idle for long, and would hold its place for ever. A sealed
//! buffer (a complete chunk on its way to a volume) is never taken: it ends by itself.

mod idle;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use idle::IdleIndex;

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
    /// Idle this long, a buffer may be set aside, or a slot given back, while others wait.
    pub(crate) park_idle: Duration,
    /// Idle this long, a buffer may be evicted while others wait and files can't be had; and files can't be had while one
    /// is on its way there for this long.
    pub(crate) pressure_idle: Duration,
    /// How long a body waits for room: those before it may be slow, but not for ever.
    pub(crate) wait_max: Duration,
    /// What may be set aside.
    pub(crate) aside: AsideLimits,
}

/// How much goes to files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsideLimits {
    /// Bytes in all files together. 0: nothing is set aside.
    pub(crate) bytes: usize,
    /// Buffers on their way to a file at once.
    pub(crate) at_once: usize,
    /// A buffer below this is not worth a file, unless it holds a slot or there is no better one.
    pub(crate) worth: usize,
    /// The largest buffer; nothing is chosen while less than this is left.
    pub(crate) each: usize,
    /// After a failed write none is tried for this long.
    pub(crate) pause: Duration,
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

#[derive(Debug, Clone, Copy)]
struct Holder {
    place: Place,
    bytes: usize,
    /// What it waits to grow to.
    wanted: Option<usize>,
    idle_since: Option<Duration>,
    /// Since when its client has been below the floor that counts under pressure.
    slow_since: Option<Duration>,
    sealed: bool,
    /// Since when it is to be set aside, and has not been yet.
    leaving_since: Option<Duration>,
    /// Its bytes in a file.
    aside: usize,
}

impl Holder {
    /// Since when others could have had its memory. `None`: they can't.
    fn takeable_since(&self) -> Option<Duration> {
        // One that waits itself is not idle: it is we who let it wait.
        let takeable =
            !self.sealed && self.leaving_since.is_none() && self.bytes > 0 && self.wanted.is_none();
        self.idle_since.filter(|_| takeable)
    }

    /// Its part of what may lie in files: what does, and what is about to.
    fn aside_charge(&self) -> usize {
        self.aside + if self.leaving_since.is_some() { self.bytes } else { 0 }
    }
}

/// What changed for others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// These may go on.
    pub(crate) granted: Vec<HolderId>,
    /// These have lost their buffer.
    pub(crate) evicted: Vec<HolderId>,
    /// These are to set their buffer aside, unless their client sends again first.
    pub(crate) to_set_aside: Vec<HolderId>,
}

/// The one owner of the counts.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: LedgerLimits,
    small_used: usize,
    open_used: usize,
    slots_used: usize,
    aside_used: usize,
    /// Those on their way to a file, by the moment since when: a few.
    leaving: BTreeSet<(Duration, HolderId)>,
    /// No file is tried before this moment.
    aside_from: Duration,
    holders: HashMap<HolderId, Holder>,
    idle: IdleIndex,
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
            aside_used: 0,
            leaving: BTreeSet::new(),
            aside_from: Duration::ZERO,
            holders: HashMap::new(),
            idle: IdleIndex::default(),
            small_queue: VecDeque::new(),
            large_queue: VecDeque::new(),
            next_id: 0,
        }
    }

    /// A buffer of no bytes.
    pub(crate) fn open(&mut self) -> HolderId {
        let id = HolderId(self.next_id);
        self.next_id += 1;
        let holder = Holder {
            place: Place::Small,
            bytes: 0,
            wanted: None,
            idle_since: None,
            slow_since: None,
            sealed: false,
            leaving_since: None,
            aside: 0,
        };
        self.holders.insert(id, holder);
        id
    }

    /// The one way in which a holder changes: the sums and the order of the idle ones follow.
    fn change(&mut self, id: HolderId, change: impl FnOnce(&mut Holder)) {
        let Some(mut holder) = self.holders.get(&id).copied() else { return };
        self.discount(id, &holder);
        change(&mut holder);
        match holder.place {
            Place::Small => self.small_used += holder.bytes,
            Place::Open => self.open_used += holder.bytes,
            Place::Slot => self.slots_used += 1,
        }
        self.aside_used += holder.aside_charge();
        self.leaving.extend(holder.leaving_since.map(|since| (since, id)));
        self.idle.insert(id, &holder);
        self.holders.insert(id, holder);
    }

    fn discount(&mut self, id: HolderId, holder: &Holder) {
        match holder.place {
            Place::Small => self.small_used -= holder.bytes,
            Place::Open => self.open_used -= holder.bytes,
            Place::Slot => self.slots_used -= 1,
        }
        self.aside_used -= holder.aside_charge();
        if let Some(since) = holder.leaving_since {
            self.leaving.remove(&(since, id));
        }
        self.idle.remove(id, holder);
    }

    /// Asks for a buffer of `to` bytes in all. True: it is granted. False: it waits; a later [`Changes`] says more.
    pub(crate) fn grow(&mut self, id: HolderId, to: usize) -> bool {
        let Some(holder) = self.holders.get(&id).copied() else { return false };
        let enough = to <= holder.bytes;
        self.change(id, |h| {
            (h.idle_since, h.leaving_since) = (None, None);
            h.wanted = (!enough).then_some(to);
        });
        if enough {
            return true;
        }
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
        let Some(holder) = self.holders.get(&id).copied() else { return false };
        let Some(wanted) = holder.wanted else { return true };
        let Some(target) = self.place_for(&holder, wanted) else { return false };
        self.change(id, |h| (h.place, h.bytes, h.wanted) = (target, wanted, None));
        true
    }

    fn place_for(&self, holder: &Holder, wanted: usize) -> Option<Place> {
        if holder.place == Place::Slot {
            return Some(Place::Slot);
        }
        if holder.place == Place::Small && wanted <= self.limits.small_each {
            if self.small_used - holder.bytes + wanted <= self.limits.small_bytes {
                return Some(Place::Small);
            }
            if holder.bytes == 0 {
                return None;
            }
            // What holds small memory already must not wait for others that do: together they would stop each other.
        }
        let already = if holder.place == Place::Open { holder.bytes } else { 0 };
        if self.open_used - already + wanted <= self.limits.open_bytes {
            return Some(Place::Open);
        }
        (self.slots_used < self.limits.slots).then_some(Place::Slot)
    }

    /// Nothing comes from its client at the moment.
    pub(crate) fn idle(&mut self, id: HolderId, now: Duration) {
        self.change(id, |h| _ = h.idle_since.get_or_insert(now));
    }

    /// Bytes came again, so it stays in memory even if it was chosen to be set aside; `is_slow`: fewer than the floor
    /// that counts under pressure.
    pub(crate) fn active(&mut self, id: HolderId, is_slow: bool, now: Duration) {
        self.change(id, |h| {
            (h.idle_since, h.leaving_since) = (None, None);
            h.slow_since = is_slow.then(|| h.slow_since.unwrap_or(now));
        });
    }

    /// It was set aside: its buffer is empty again, `bytes` more are in its file.
    pub(crate) fn set_aside(&mut self, id: HolderId, bytes: usize) {
        self.change(id, |h| {
            (h.place, h.bytes, h.leaving_since) = (Place::Small, 0, None);
            h.aside += bytes;
        });
    }

    /// It could not be set aside and stays where it is. The next one hardly fares better, so none is tried for a while.
    pub(crate) fn not_set_aside(&mut self, id: HolderId, now: Duration) {
        self.change(id, |h| h.leaving_since = None);
        self.aside_from = now + self.limits.aside.pause;
    }

    /// Its bytes are back in memory and its file is gone.
    pub(crate) fn taken_back(&mut self, id: HolderId) {
        self.change(id, |h| h.aside = 0);
    }

    /// Its chunk is complete; from now on it is never taken.
    pub(crate) fn seal(&mut self, id: HolderId) {
        self.change(id, |h| {
            (h.sealed, h.leaving_since, h.idle_since, h.slow_since) = (true, None, None, None);
        });
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self, id: HolderId) {
        if let Some(holder) = self.holders.remove(&id) {
            self.discount(id, &holder);
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

    /// Bytes in files, and about to be.
    pub(crate) fn aside_bytes(&self) -> usize {
        self.aside_used
    }

    /// Lets those go on that can, and makes room for the first who can't. To be called after every release, and now
    /// and then while somebody waits.
    pub(crate) fn settle(&mut self, now: Duration) -> Changes {
        let mut changes = Changes::default();
        for small in [true, false] {
            self.drain_queue(small, &mut changes);
            while self.waiting(small) > 0 && self.make_room(small, now, &mut changes) {
                self.drain_queue(small, &mut changes);
            }
        }
        changes
    }

    fn waiting(&self, small: bool) -> usize {
        if small { self.small_queue.len() } else { self.large_queue.len() }
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

    /// True: some memory is free now.
    fn make_room(&mut self, small: bool, now: Duration, changes: &mut Changes) -> bool {
        let places: &'static [Place] = if small { &[Place::Small] } else { &[Place::Open, Place::Slot] };
        if !small && self.park(now) {
            return true;
        }
        if !self.may_set_aside(now) {
            return self.evict(now, places, changes);
        }
        // One for each that waits is enough: what is on its way makes room soon, and is followed by the next.
        let at_once = self.limits.aside.at_once.min(self.waiting(small));
        while self.leaving.len() < at_once && self.may_set_aside(now) {
            let Some(id) = self.choose_for_aside(now, places) else { break };
            self.change(id, |h| h.leaving_since = Some(now));
            changes.to_set_aside.push(id);
        }
        false
    }

    fn may_set_aside(&self, now: Duration) -> bool {
        let AsideLimits { bytes, each, .. } = self.limits.aside;
        bytes > 0 && now >= self.aside_from && self.aside_used + each <= bytes && !self.is_stuck(now)
    }

    /// Whether one has been on its way to a file for so long that nobody may be let wait for it. No other is sent behind
    /// it: a disk that hangs would come to hold all buffers there are, where evicting frees them.
    fn is_stuck(&self, now: Duration) -> bool {
        self.leaving.first().is_some_and(|(since, _)| now.saturating_sub(*since) >= self.limits.pressure_idle)
    }

    fn choose_for_aside(&self, now: Duration, places: &'static [Place]) -> Option<HolderId> {
        let until = now.checked_sub(self.limits.park_idle);
        let is_worth = |id: &HolderId| {
            let holder = self.holders.get(id);
            holder.is_some_and(|h| h.place == Place::Slot || h.bytes >= self.limits.aside.worth)
        };
        let mut takeable = self.idle.takeable(places, until);
        let first = takeable.next()?;
        Some(if is_worth(&first) { first } else { takeable.find(is_worth).unwrap_or(first) })
    }

    /// Moves one idle body from its slot to open memory.
    fn park(&mut self, now: Duration) -> bool {
        let Some(until) = now.checked_sub(self.limits.park_idle) else { return false };
        let room = self.limits.open_bytes.saturating_sub(self.open_used);
        let fits = |id: &HolderId| self.holders.get(id).is_some_and(|h| h.bytes <= room);
        let Some(id) = self.idle.idle_in(Place::Slot, until).find(fits) else { return false };
        self.change(id, |h| h.place = Place::Open);
        true
    }

    /// Takes the buffer of one that is slow or idle.
    fn evict(&mut self, now: Duration, places: &'static [Place], changes: &mut Changes) -> bool {
        let until = now.checked_sub(self.limits.pressure_idle);
        let Some(id) = self.idle.takeable(places, until).next() else { return false };
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
