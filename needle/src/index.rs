//! Where the needles of one volume are, in memory.
//!
//! Plain hash tables of 28 bytes a needle and the tables' slack; many small ones, so that growing one, or copying one for a
//! checkpoint, holds nobody up for long. The compact form takes its place behind the same
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
#[derive(Debug, Clone)]
pub struct Index {
    shards: Vec<HashMap<Name, [u32; 2]>>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: vec![HashMap::new(); Self::SHARDS], len: 0 }
    }
}

const SHARD_BITS: u32 = 8;

/// Another mix than the tables' own hash: keys need not be random.
fn shard_of(name: &Name) -> usize {
    let mixed = name.iter().fold(0u32, |mixed, word| (mixed.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b1));
    (mixed >> (u32::BITS - SHARD_BITS)) as usize
}

fn name(key: NeedleKey, cookie: Cookie) -> Name {
    let k = key.0;
    [(k >> 96) as u32, (k >> 64) as u32, (k >> 32) as u32, k as u32, cookie.0]
}

impl Index {
    /// How many tables there are.
    pub const SHARDS: usize = 1 << SHARD_BITS;

    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// In which table a needle stands: the same in every process.
    pub fn shard_of(key: NeedleKey, cookie: Cookie) -> usize {
        shard_of(&name(key, cookie))
    }

    /// Takes a needle in. False, and no change, where its identity is taken, or the offset is not one of a record.
    pub fn insert(&mut self, key: NeedleKey, cookie: Cookie, slot: Slot) -> bool {
        let Ok(unit) = u32::try_from(slot.offset / ALIGN_BYTES as u64) else { return false };
        if !slot.offset.is_multiple_of(ALIGN_BYTES as u64) {
            return false;
        }
        let name = name(key, cookie);
        let Some(shard) = self.shards.get_mut(shard_of(&name)) else { return false };
        let is_new = shard.try_insert(name, [unit, slot.length]).is_ok();
        self.len += usize::from(is_new);
        is_new
    }

    /// Where a needle is.
    pub fn get(&self, key: NeedleKey, cookie: Cookie) -> Option<Slot> {
        let name = name(key, cookie);
        self.shards.get(shard_of(&name))?.get(&name).map(|[unit, length]| slot(*unit, *length))
    }

    /// Whether it is there.
    pub fn contains(&self, key: NeedleKey, cookie: Cookie) -> bool {
        self.get(key, cookie).is_some()
    }

    /// Takes a needle out.
    pub fn remove(&mut self, key: NeedleKey, cookie: Cookie) -> Option<Slot> {
        let name = name(key, cookie);
        let removed = self.shards.get_mut(shard_of(&name))?.remove(&name);
        self.len -= usize::from(removed.is_some());
        removed.map(|[unit, length]| slot(unit, length))
    }

    /// All needles, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (NeedleKey, Cookie, Slot)> + '_ {
        (0..Self::SHARDS).flat_map(|n| self.shard(n))
    }

    /// The needles of one table, in no order; none beyond the last table.
    pub fn shard(&self, n: usize) -> impl Iterator<Item = (NeedleKey, Cookie, Slot)> + '_ {
        self.shards.get(n).into_iter().flatten().map(|([a, b, c, d, cookie], [unit, length])| {
            let key = u128::from(*a) << 96 | u128::from(*b) << 64 | u128::from(*c) << 32 | u128::from(*d);
            (NeedleKey(key), Cookie(*cookie), slot(*unit, *length))
        })
    }

    /// How many needles.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `more` needles at once.
    pub fn reserve(&mut self, more: usize) {
        // Names fall evenly into the tables, but for a little.
        let each = more.div_ceil(Self::SHARDS);
        self.shards.iter_mut().for_each(|shard| shard.reserve(each));
    }
}

fn slot(unit: u32, length: u32) -> Slot {
    Slot { offset: u64::from(unit) * ALIGN_BYTES as u64, length }
}
