//! The names of a volume's needles, in pages. The index has no order of its own, so a page is made table by table, each
//! sorted: what is held for it is one table's names.

use hay_common::ids::{Cookie, NeedleKey, VolumeId};
use hay_needle::Index;

use super::Store;
use super::error::ReadError;

/// (key, cookie, bytes of data)
pub type Name = (NeedleKey, Cookie, u32);

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// In the order of tables, then of names.
    pub names: Vec<Name>,
    /// Whether others follow.
    pub more: bool,
    /// Whether needles may be lost whose names nobody knows.
    pub incomplete: bool,
}

impl Store {
    /// Names behind `after`, at most `limit`. Takes a lock for as long as one table is copied.
    ///
    /// # Errors
    /// `NoVolume`, `Broken`.
    pub fn names(
        &self,
        id: VolumeId,
        after: Option<(NeedleKey, Cookie)>,
        limit: usize,
    ) -> Result<Names, ReadError> {
        let volume = self.readable(id)?;
        let first = after.map_or(0, |(key, cookie)| Index::shard_of(key, cookie));
        let mut names: Vec<Name> = Vec::new();
        for shard in first..Index::SHARDS {
            let behind = after.filter(|_| shard == first);
            let mut table: Vec<Name> = {
                let content = volume.content.read();
                let all = content.index.shard(shard).map(|(key, cookie, slot)| (key, cookie, slot.length));
                all.filter(|(key, cookie, _)| behind.is_none_or(|behind| (*key, *cookie) > behind)).collect()
            };
            table.sort_unstable();
            let room = limit.saturating_sub(names.len());
            let cut = table.len() > room;
            names.extend(table.into_iter().take(room));
            if cut {
                return Ok(Names { names, more: true, incomplete: volume.state.load().incomplete });
            }
        }
        Ok(Names { names, more: false, incomplete: volume.state.load().incomplete })
    }

    /// Whether a needle is held here, whole or not; of a volume that is written anew, whether the new file has it.
    pub fn has(&self, id: VolumeId, key: NeedleKey, cookie: Cookie) -> bool {
        self.growing(id).is_some_and(|volume| volume.content.read().index.contains(key, cookie))
    }
}
