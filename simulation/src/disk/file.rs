//! One simulated file: what it holds, and what of it would survive a power failure.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use rand::RngExt;
use rand::rngs::StdRng;

/// What a power failure keeps or loses as a whole.
const BLOCK: usize = 512;

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
        let mut done = 0;
        while done < wanted {
            let (number, within) = place(offset + done as u64);
            let piece = (BLOCK - within).min(wanted - done);
            match self.blocks.get(&number) {
                Some(block) => buf[done..done + piece].copy_from_slice(&block[within..within + piece]),
                None => buf[done..done + piece].fill(0),
            }
            done += piece;
        }
        wanted
    }

    fn remember(&mut self, number: u64) {
        self.before.entry(number).or_insert_with(|| self.blocks.get(&number).cloned());
    }

    pub fn write(&mut self, parts: &[IoSlice<'_>], offset: u64) {
        let mut at = offset;
        for part in parts {
            let mut rest: &[u8] = part;
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

    pub fn sync(&mut self) {
        self.before.clear();
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
