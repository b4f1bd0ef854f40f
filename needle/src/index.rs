//! Where the needles of one volume are, in memory.
//!
//! A plain hash table of 28 bytes a needle and the table's slack. The compact form takes its place behind the same
//! functions; whoever uses it compares key and cookie in the record that the read returns, so tags will do there.

use hashbrown::HashMap;
use hay_common::ids::{Cookie, NeedleKey};

use crate::ALIGN_BYTES;

/// Where one needle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Of its record, a multiple of 8, below 32 GiB.
    pub offset: u64,
    /// Bytes of its data.
    pub length: u32,
}

/// (key in two halves of two words, cookie): words, so that an entry is 28 bytes and not 32.
type Name = [u32; 5];

/// The needles of one volume by (key, cookie).
#[derive(Debug, Default, Clone)]
pub struct Index {
    slots: HashMap<Name, [u32; 2]>,
}

fn name(key: NeedleKey, cookie: Cookie) -> Name {
    let k = key.0;
    [(k >> 96) as u32, (k >> 64) as u32, (k >> 32) as u32, k as u32, cookie.0]
}

impl Index {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a needle in. False, and no change, where its identity is taken, or the offset is not one of a record.
    pub fn insert(&mut self, key: NeedleKey, cookie: Cookie, slot: Slot) -> bool {
        let Ok(unit) = u32::try_from(slot.offset / ALIGN_BYTES as u64) else { return false };
        if !slot.offset.is_multiple_of(ALIGN_BYTES as u64) {
            return false;
        }
        self.slots.try_insert(name(key, cookie), [unit, slot.length]).is_ok()
    }

    /// Where a needle is.
    pub fn get(&self, key: NeedleKey, cookie: Cookie) -> Option<Slot> {
        self.slots.get(&name(key, cookie)).map(|[unit, length]| slot(*unit, *length))
    }

    /// Whether it is there.
    pub fn contains(&self, key: NeedleKey, cookie: Cookie) -> bool {
        self.slots.contains_key(&name(key, cookie))
    }

    /// Takes a needle out.
    pub fn remove(&mut self, key: NeedleKey, cookie: Cookie) -> Option<Slot> {
        self.slots.remove(&name(key, cookie)).map(|[unit, length]| slot(unit, length))
    }

    /// All needles, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NeedleKey, Cookie, Slot)> + '_ {
        self.slots.iter().map(|([a, b, c, d, cookie], [unit, length])| {
            let key = u128::from(*a) << 96 | u128::from(*b) << 64 | u128::from(*c) << 32 | u128::from(*d);
            (NeedleKey(key), Cookie(*cookie), slot(*unit, *length))
        })
    }

    /// How many needles.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Makes room for `more` needles at once.
    pub fn reserve(&mut self, more: usize) {
        self.slots.reserve(more);
    }
}

fn slot(unit: u32, length: u32) -> Slot {
    Slot { offset: u64::from(unit) * ALIGN_BYTES as u64, length }
}
