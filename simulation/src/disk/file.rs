//! One simulated file: what it holds, and what of it would survive a power failure.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::trace::Sum;

/// What a power failure keeps or loses as a whole.
const BLOCK: usize = 512;

/// What a lying disk syncs all the same.
const HEAD_BLOCKS: u64 = 8;

type Block = Box<[u8; BLOCK]>;

/// Blocks that are not there hold zeros.
#[derive(Default)]
pub struct Content {
    blocks: BTreeMap<u64, Block>,
    len: u64,
    /// What stood, as of the last sync, in the blocks that were written since.
    before: BTreeMap<u64, Option<Block>>,
    synced_len: u64,
}

impl Content {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let wanted = (self.len.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let end = offset + wanted as u64;
        buf[..wanted].fill(0);
        for (number, block) in self.blocks.range(place(offset).0..end.div_ceil(BLOCK as u64)) {
            let first = number * BLOCK as u64;
            let (from, to) = (first.max(offset), (first + BLOCK as u64).min(end));
            if from < to {
                let within = (from - first) as usize..(to - first) as usize;
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&block[within]);
            }
        }
        wanted
    }

    fn remember(&mut self, number: u64) {
        self.before.entry(number).or_insert_with(|| self.blocks.get(&number).cloned());
    }

    pub fn write(&mut self, parts: &[IoSlice<'_>], offset: u64) {
        self.write_first(u64::MAX, parts, offset);
    }

    /// Writes no more than the first `most` bytes.
    pub fn write_first(&mut self, most: u64, parts: &[IoSlice<'_>], offset: u64) {
        let mut at = offset;
        for part in parts {
            let room = most.saturating_sub(at - offset);
            let mut rest: &[u8] = &part[..part.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
            while !rest.is_empty() {
                let (number, within) = place(at);
                let (piece, later) = rest.split_at((BLOCK - within).min(rest.len()));
                self.remember(number);
                let block = self.blocks.entry(number).or_insert_with(|| Box::new([0; BLOCK]));
                block[within..within + piece.len()].copy_from_slice(piece);
                at += piece.len() as u64;
                rest = later;
            }
        }
        self.len = self.len.max(at);
    }

    pub fn zero(&mut self, from: u64, to: u64) {
        let (first, last) = (from.div_ceil(BLOCK as u64), to / BLOCK as u64);
        if first < last {
            let there: Vec<u64> = self.blocks.range(first..last).map(|(number, _)| *number).collect();
            for number in there {
                self.remember(number);
                self.blocks.remove(&number);
            }
            self.write_zeros(from, first * BLOCK as u64);
            self.write_zeros(last * BLOCK as u64, to);
        } else {
            self.write_zeros(from, to);
        }
        self.len = self.len.max(to);
    }

    fn write_zeros(&mut self, from: u64, to: u64) {
        // Less than two blocks.
        let zeros = vec![0; to.saturating_sub(from) as usize];
        self.write(&[IoSlice::new(&zeros)], from);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let beyond = len.next_multiple_of(BLOCK as u64);
            let gone: Vec<u64> =
                self.blocks.range(beyond / BLOCK as u64..).map(|(number, _)| *number).collect();
            for number in gone {
                self.remember(number);
                self.blocks.remove(&number);
            }
            self.write_zeros(len, beyond.min(self.len));
        }
        self.len = len;
    }

    /// All that it holds goes into `sum`.
    pub fn sum(&self, sum: &mut Sum) {
        for (number, block) in &self.blocks {
            sum.add_number(*number);
            sum.add(block.as_slice());
        }
    }

    pub fn sync(&mut self) {
        self.before.clear();
        self.synced_len = self.len;
    }

    /// What a disk does that lies: lengths and the first bytes, which say whose the file is, are safe, the rest is not.
    pub fn pretend_to_sync(&mut self) {
        self.before.retain(|number, _| *number >= HEAD_BLOCKS);
        self.synced_len = self.len;
    }

    /// Of the blocks written since the last sync any are lost, and the length may be the old one.
    pub fn lose_power(&mut self, rng: &mut StdRng) {
        let len = if rng.random_bool(0.5) { self.len } else { self.synced_len };
        for (number, before) in std::mem::take(&mut self.before) {
            if rng.random_bool(0.5) {
                match before {
                    Some(block) => self.blocks.insert(number, block),
                    None => self.blocks.remove(&number),
                };
            }
        }
        self.set_len(len);
        self.sync();
    }
}

fn place(offset: u64) -> (u64, usize) {
    (offset / BLOCK as u64, (offset % BLOCK as u64) as usize)
}

/// What a machine that was switched off says to whoever still asks it.
pub fn switched_off() -> io::Error {
    io::Error::other("the machine was switched off")
}
