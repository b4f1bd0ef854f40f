//! Recovery as a decision: windows of the file go in, index entries and a verdict come out.
//!
//! What can't be read is judged by the synced length, which every batch carries in front of it: damage below the
//! highest one known, wherever in the file it was found, is corruption and stays where it is. Only what follows the
//! last synced batch is a torn write. Both look alike at the moment they are met, so what follows the first
//! unjudged damage waits until a later batch, or the end, decides.

use std::ops::Range;

use crate::codec::all_zero;
use crate::scan::{Step, resync, step};
use crate::{ALIGN_BYTES, HEADER_BYTES, Header, Index, NeedleHeader, Seeds, Slot};

/// Windows are this long unless a record needs more.
const WINDOW_BYTES: usize = 1 << 20;
/// So many damaged places are named; further ones are counted.
const NAMED_MAX: usize = 16;

/// A place that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// From where to where, in bytes of the file.
    pub range: Range<u64>,
    /// What is wrong, for people.
    pub reason: String,
    /// Whose records stood there can't be told.
    pub nameless: bool,
}

/// What a replay found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The next record belongs here.
    pub end: u64,
    /// All below is known to have been on disk.
    pub synced: u64,
    /// Damaged places below the synced length, the first few of them.
    pub corrupt: Vec<Damage>,
    /// How many there are.
    pub corrupt_count: u64,
    /// Some of them held records of needles that can't be named: one that is not in the index may be one of those.
    pub lost: bool,
    /// Where a torn write begins: to be set aside, then cut. Equal to `end`.
    pub torn: Option<u64>,
    /// Needles and tombstones that were taken in.
    pub records: u64,
}

#[derive(Debug)]
enum Mode {
    /// A record is expected.
    Records,
    /// Zeros since there.
    Zeros { from: u64 },
    /// Looking for the next record; the damage began at `unjudged.last()` or was judged already.
    Lost,
    /// The file's end was reached.
    Over { clean_from: Option<u64> },
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    seeds: Seeds,
    at: u64,
    file_len: u64,
    window: usize,
    synced: u64,
    mode: Mode,
    corrupt: Vec<Damage>,
    corrupt_count: u64,
    lost: bool,
    unjudged: Vec<Damage>,
    waiting: Vec<(u64, Header)>,
    records: u64,
}

impl Replay {
    /// Of the records from `from` in a file of `file_len` bytes, of which `synced` are known to have been on disk.
    pub fn new(seeds: Seeds, from: u64, file_len: u64, synced: u64) -> Self {
        Self {
            seeds,
            at: from,
            file_len,
            window: WINDOW_BYTES,
            synced,
            mode: if from < file_len { Mode::Records } else { Mode::Over { clean_from: None } },
            corrupt: Vec::new(),
            corrupt_count: 0,
            lost: false,
            unjudged: Vec::new(),
            waiting: Vec::new(),
            records: 0,
        }
    }

    /// Which bytes of the file are wanted next; `None` at the end.
    pub fn wants(&self) -> Option<Range<u64>> {
        match self.mode {
            Mode::Over { .. } => None,
            _ => Some(self.at..self.file_len.min(self.at + self.window as u64)),
        }
    }

    /// Takes the bytes that [`Replay::wants`] named, all of them, and enters what is certain into `index`.
    pub fn feed(&mut self, window: &[u8], index: &mut Index) {
        let is_last = self.at + window.len() as u64 >= self.file_len;
        let mut rest = window;
        self.window = WINDOW_BYTES;
        while !rest.is_empty() {
            let advanced = match self.mode {
                Mode::Records => self.record(rest, is_last, index),
                Mode::Zeros { from } => Some(self.zeros(rest, from)),
                Mode::Lost => self.search(rest, is_last),
                Mode::Over { .. } => None,
            };
            let Some(advanced) = advanced else { return };
            self.at += advanced as u64;
            rest = rest.get(advanced..).unwrap_or_default();
        }
        if is_last {
            let clean_from = match self.mode {
                Mode::Zeros { from } => Some(from),
                _ => None,
            };
            self.mode = Mode::Over { clean_from };
        }
    }

    /// One record at the front of `rest`: how far to go on, `None` where a longer window is needed.
    fn record(&mut self, rest: &[u8], is_last: bool, index: &mut Index) -> Option<usize> {
        match step(self.seeds, self.at, rest) {
            Step::Record { header, len, intact } => {
                if !intact {
                    let range = self.at..self.at + len as u64;
                    self.damaged(range, "the data's checksum does not match", false);
                }
                self.take(header, index);
                Some(len)
            }
            Step::Zeros => {
                self.mode = Mode::Zeros { from: self.at };
                Some(0)
            }
            Step::More(needed) if !is_last => {
                self.window = needed.max(WINDOW_BYTES);
                None
            }
            Step::More(_) => Some(self.lose(rest, "the file ends inside a record")),
            Step::Damage(error) => Some(self.lose(rest, &error.to_string())),
        }
    }

    /// No record here: look for one from the next aligned place on.
    fn lose(&mut self, rest: &[u8], reason: &str) -> usize {
        self.damaged(self.at..self.file_len, reason, true);
        self.mode = Mode::Lost;
        ALIGN_BYTES.min(rest.len())
    }

    fn zeros(&mut self, rest: &[u8], from: u64) -> usize {
        if all_zero(rest) {
            return rest.len();
        }
        let zeros = rest.iter().position(|b| *b != 0).unwrap_or(rest.len());
        self.damaged(from..self.file_len, "zeros stand where a record was", true);
        self.mode = Mode::Lost;
        // Aligned: `at` is, and so is every advance in this mode.
        zeros - zeros % ALIGN_BYTES
    }

    fn search(&mut self, rest: &[u8], is_last: bool) -> Option<usize> {
        match resync(self.seeds, self.at, rest) {
            Some(distance) => {
                self.mode = Mode::Records;
                let found = self.at + distance as u64;
                let open = self.unjudged.last_mut().or(self.corrupt.last_mut());
                if let Some(open) = open.filter(|d| d.range.end == self.file_len) {
                    open.range.end = found;
                }
                Some(distance)
            }
            None if is_last => Some(rest.len()),
            // A header may begin in the last bytes and end in the next window.
            None => match rest.len().saturating_sub(HEADER_BYTES - ALIGN_BYTES) / ALIGN_BYTES * ALIGN_BYTES {
                0 => None,
                distance => Some(distance),
            },
        }
    }

    fn damaged(&mut self, range: Range<u64>, reason: &str, nameless: bool) {
        let damage = Damage { range, reason: reason.to_owned(), nameless };
        if damage.range.start < self.synced {
            self.convict(damage);
        } else {
            self.unjudged.push(damage);
        }
    }

    fn convict(&mut self, damage: Damage) {
        self.corrupt_count += 1;
        self.lost |= damage.nameless;
        if self.corrupt.len() < NAMED_MAX {
            self.corrupt.push(damage);
        }
    }

    fn take(&mut self, header: Header, index: &mut Index) {
        if let Header::Batch(batch) = header {
            self.synced = self.synced.max(batch.synced);
            self.judge(index);
        }
        if self.unjudged.is_empty() {
            self.enter(self.at, header, index);
        } else {
            self.waiting.push((self.at, header));
        }
    }

    /// After the synced length has grown: what lies below it was whole once.
    fn judge(&mut self, index: &mut Index) {
        let below = self.unjudged.partition_point(|d| d.range.start < self.synced);
        for damage in self.unjudged.drain(..below).collect::<Vec<_>>() {
            self.convict(damage);
        }
        let certain_to = self.unjudged.first().map_or(u64::MAX, |d| d.range.start);
        let certain = self.waiting.partition_point(|(offset, _)| *offset < certain_to);
        for (offset, header) in self.waiting.drain(..certain).collect::<Vec<_>>() {
            self.enter(offset, header, index);
        }
    }

    fn enter(&mut self, offset: u64, header: Header, index: &mut Index) {
        match header {
            Header::Needle(NeedleHeader { key, cookie, length, .. }) => {
                // Where an identity stands twice the first stays: it is the one that was acknowledged.
                index.insert(key, cookie, Slot { offset, length });
                self.records += 1;
            }
            Header::Tombstone { key, cookie } => {
                index.remove(key, cookie);
                self.records += 1;
            }
            Header::Batch(_) => {}
        }
    }

    /// The verdict. To be asked once [`Replay::wants`] has nothing more.
    pub fn finish(mut self) -> Outcome {
        let clean_from = match self.mode {
            Mode::Over { clean_from } => clean_from,
            _ => None,
        };
        let torn = self.unjudged.first().map(|d| d.range.start);
        let end = torn.or(clean_from).unwrap_or(self.at);
        let stands = end.min(self.file_len);
        if stands < self.synced && self.corrupt.last().is_none_or(|d| d.range.end < self.synced) {
            self.convict(Damage {
                range: stands..self.synced,
                reason: "the file ends below what was synced".to_owned(),
                nameless: true,
            });
        }
        Outcome {
            end,
            synced: self.synced,
            corrupt: self.corrupt,
            corrupt_count: self.corrupt_count,
            lost: self.lost,
            torn,
            records: self.records,
        }
    }
}
