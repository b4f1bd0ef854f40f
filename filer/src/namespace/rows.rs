//! Rows as the namespace sees them: an ordered map to read, and a batch of changes over it.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use crate::schema::keys::Key;
use crate::schema::values::{DecodeRowError, Row};

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// It would have to wait for the disk, and was told not to.
    #[error("not in memory")]
    NotCached,
    /// What was read is not what was written, or newer than this program.
    #[error(transparent)]
    Decode(#[from] DecodeRowError),
    /// Rows contradict each other.
    #[error("the metadata contradicts itself: {0}")]
    Contradiction(String),
    /// The engine below failed.
    #[error("the storage engine failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What to do after a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Walk {
    /// Go on to the next.
    On,
    /// Go on at this key, or the next after it (in reverse: before it). Never backwards.
    Seek(Key),
    /// Enough.
    Stop,
}

/// In which order rows are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By rising keys.
    Forward,
    /// By falling keys.
    Reverse,
}

/// Sees rows, one after the other.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> Result<Walk, RowsError> + 'v;

/// An ordered map from keys to values, at one moment.
pub trait Rows {
    /// The value of a key.
    ///
    /// # Errors
    /// See [`RowsError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError>;

    /// Shows the rows of `range` to `visit`.
    ///
    /// # Errors
    /// See [`RowsError`]; also those of `visit`.
    fn walk(&self, range: &Range<Key>, order: Order, visit: &mut Visit<'_>) -> Result<(), RowsError>;
}

/// The row of a key, decoded.
///
/// # Errors
/// See [`RowsError`].
pub fn read<R: Row>(rows: &dyn Rows, key: &[u8]) -> Result<Option<R>, RowsError> {
    rows.get(key)?.map(|bytes| R::decode(&bytes)).transpose().map_err(Into::into)
}

/// The first row of `range` in `order`.
///
/// # Errors
/// See [`RowsError`].
pub fn first(rows: &dyn Rows, range: &Range<Key>, order: Order) -> Result<Option<(Key, Vec<u8>)>, RowsError> {
    let mut found = None;
    rows.walk(range, order, &mut |key, value| {
        found = Some((key.to_vec(), value.to_vec()));
        Ok(Walk::Stop)
    })?;
    Ok(found)
}

/// At most `max` keys of `range` in `order`.
///
/// # Errors
/// See [`RowsError`].
pub fn keys_of(rows: &dyn Rows, range: &Range<Key>, order: Order, max: usize) -> Result<Vec<Key>, RowsError> {
    let mut keys = Vec::new();
    if max > 0 {
        rows.walk(range, order, &mut |key, _| {
            keys.push(key.to_vec());
            Ok(if keys.len() == max { Walk::Stop } else { Walk::On })
        })?;
    }
    Ok(keys)
}

/// Rows in memory: the base of tests, and the shape of every other one.
pub type MemoryRows = BTreeMap<Key, Vec<u8>>;

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn walk(&self, range: &Range<Key>, order: Order, visit: &mut Visit<'_>) -> Result<(), RowsError> {
        let mut at = Position::of(range, order);
        while let Some((key, value)) = at.next_in(self) {
            let step = visit(key, value)?;
            if !at.step(key, step) {
                break;
            }
        }
        Ok(())
    }
}

/// Where a walk stands: the keys that are still before it.
struct Position {
    left: (Bound<Key>, Bound<Key>),
    order: Order,
}

impl Position {
    fn of(range: &Range<Key>, order: Order) -> Self {
        Self { left: (Bound::Included(range.start.clone()), Bound::Excluded(range.end.clone())), order }
    }

    fn is_empty(&self) -> bool {
        let (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) =
            &self.left
        else {
            return false;
        };
        // A BTreeMap panics on a range that begins after its end or excludes both of the same key.
        from > to || (from == to && !matches!(self.left, (Bound::Included(_), Bound::Included(_))))
    }

    fn next_in<'m, V>(&self, map: &'m BTreeMap<Key, V>) -> Option<(&'m Key, &'m V)> {
        if self.is_empty() {
            return None;
        }
        let mut range = map.range::<Key, _>((self.left.0.as_ref(), self.left.1.as_ref()));
        match self.order {
            Order::Forward => range.next(),
            Order::Reverse => range.next_back(),
        }
    }

    /// Moves past `key` as `step` says; `false` when the walk is over.
    fn step(&mut self, key: &[u8], step: Walk) -> bool {
        let next = match step {
            Walk::On => Bound::Excluded(key.to_vec()),
            Walk::Seek(to) => Bound::Included(to),
            Walk::Stop => return false,
        };
        match self.order {
            Order::Forward => self.left.0 = next,
            Order::Reverse => self.left.1 = next,
        }
        true
    }
}

/// Changes over rows that stay as they are, until [`Batch::into_changes`] hands them out to be written at once.
/// What a command wrote can be taken back before the next one.
pub struct Batch<'b> {
    base: &'b dyn Rows,
    changes: BTreeMap<Key, Option<Vec<u8>>>,
    undo: Vec<(Key, Option<Option<Vec<u8>>>)>,
}

impl<'b> Batch<'b> {
    /// No changes over `base`.
    pub fn over(base: &'b dyn Rows) -> Self {
        Self { base, changes: BTreeMap::new(), undo: Vec::new() }
    }

    /// Sets a row.
    pub fn put<R: Row>(&mut self, key: Key, row: &R) {
        self.change(key, Some(row.encode()));
    }

    /// Removes a row.
    pub fn remove(&mut self, key: Key) {
        self.change(key, None);
    }

    fn change(&mut self, key: Key, value: Option<Vec<u8>>) {
        let before = self.changes.insert(key.clone(), value);
        self.undo.push((key, before));
    }

    /// Keeps what was changed since the last call of this or of [`Batch::take_back`].
    pub fn keep(&mut self) {
        self.undo.clear();
    }

    /// Takes back what was changed since the last call of this or of [`Batch::keep`].
    pub fn take_back(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(change) => self.changes.insert(key, change),
                None => self.changes.remove(&key),
            };
        }
    }

    /// All changes: rows to set, and keys (with `None`) to remove.
    pub fn into_changes(self) -> BTreeMap<Key, Option<Vec<u8>>> {
        self.changes
    }
}

impl Rows for Batch<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RowsError> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(key),
        }
    }

    fn walk(&self, range: &Range<Key>, order: Order, visit: &mut Visit<'_>) -> Result<(), RowsError> {
        let mut at = Position::of(range, order);
        let mut stopped = false;
        self.base.walk(range, order, &mut |key, value| {
            // First the changes that come before this row, then the row itself unless it was changed.
            loop {
                match at.next_in(&self.changes) {
                    Some((changed, change)) if is_before(changed, key, order) => {
                        let step = match change {
                            Some(value) => visit(changed, value)?,
                            None => Walk::On,
                        };
                        if !at.step(changed, step.clone()) {
                            stopped = true;
                            return Ok(Walk::Stop);
                        }
                        if let Walk::Seek(to) = step
                            && is_before(key, &to, order)
                        {
                            return Ok(Walk::Seek(to));
                        }
                    }
                    Some((changed, change)) if changed == key => {
                        let step = match change {
                            Some(value) => visit(key, value)?,
                            None => Walk::On,
                        };
                        stopped = !at.step(key, step.clone());
                        return Ok(step);
                    }
                    _ => {
                        let step = visit(key, value)?;
                        stopped = !at.step(key, step.clone());
                        return Ok(step);
                    }
                }
            }
        })?;
        while !stopped {
            let Some((changed, change)) = at.next_in(&self.changes) else { break };
            let step = match change {
                Some(value) => visit(changed, value)?,
                None => Walk::On,
            };
            stopped = !at.step(changed, step);
        }
        Ok(())
    }
}

fn is_before(a: &[u8], b: &[u8], order: Order) -> bool {
    match order {
        Order::Forward => a < b,
        Order::Reverse => a > b,
    }
}
