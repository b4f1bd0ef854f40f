//! A batch being put together: which needles go in, at which offsets, and the bytes to write.

use std::io::IoSlice;

use bytes::Bytes;
use hashbrown::HashSet;
use hay_common::ids::{Cookie, Epoch, NeedleKey, VolumeId};
use hay_needle::{Batch, HEADER_BYTES, Header, Index, NeedleHeader, Seeds, Slot, Trailer, padded_len};

use super::error::AppendError;
use super::queue::NewNeedle;

/// From here on a CRC known beforehand is combined, below it the data are summed again: that is cheaper.
const COMBINE_BYTES_MIN: u32 = 256 << 10;

/// What an append is checked against.
pub(crate) struct Rules<'a> {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub index: &'a Index,
    /// The file's greatest length.
    pub bytes_max: u64,
    /// Whether the disk has room for so many more bytes.
    pub has_room_for: &'a dyn Fn(u64) -> bool,
}

/// One batch. No I/O.
pub(crate) struct Draft {
    seeds: Seeds,
    start: u64,
    end: u64,
    /// Headers and trailers, one after the other; the batch marker in front.
    frames: Vec<u8>,
    /// After so many bytes of `frames` come these data.
    data: Vec<(usize, Vec<Bytes>)>,
    /// What the index gets once all is on disk.
    pub entries: Vec<(NeedleKey, Cookie, Slot)>,
    names: HashSet<(NeedleKey, Cookie)>,
    pub data_bytes: u64,
}

impl Draft {
    /// That will begin at `start`.
    pub fn new(seeds: Seeds, start: u64) -> Self {
        Self {
            seeds,
            start,
            end: start + HEADER_BYTES as u64,
            frames: vec![0; HEADER_BYTES],
            data: Vec::new(),
            entries: Vec::new(),
            names: HashSet::new(),
            data_bytes: 0,
        }
    }

    /// Takes a needle in, or says why not.
    pub fn add(&mut self, needle: NewNeedle, rules: &Rules<'_>) -> Result<(), AppendError> {
        let NewNeedle { epoch, key, cookie, codec, parts, length, crc } = needle;
        if epoch < rules.epoch {
            return Err(AppendError::StaleEpoch { volume: rules.volume, given: epoch, current: rules.epoch });
        }
        if rules.index.contains(key, cookie) || self.names.contains(&(key, cookie)) {
            return Err(AppendError::Exists { volume: rules.volume });
        }
        let end = self.end + padded_len(length);
        if end > rules.bytes_max {
            return Err(AppendError::Full(rules.volume));
        }
        if !(rules.has_room_for)(end - self.start) {
            return Err(AppendError::StorageFull);
        }
        let header = Header::Needle(NeedleHeader { key, cookie, codec, length }).encode(self.seeds, self.end);
        let trailer = match crc {
            Some(crc) if length >= COMBINE_BYTES_MIN => Trailer::combined(&header, length, crc),
            _ => Trailer::over(&header, length, parts.iter().map(|part| &part[..])),
        };
        self.frames.extend_from_slice(&header);
        self.data.push((self.frames.len(), parts));
        self.frames.extend_from_slice(trailer.as_slice());
        self.entries.push((key, cookie, Slot { offset: self.end, length }));
        self.names.insert((key, cookie));
        self.data_bytes += u64::from(length);
        self.end = end;
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where the next batch begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Puts the marker in front: `synced` bytes of the file are on disk.
    pub fn close(&mut self, synced: u64) {
        let records = self.entries.len() as u32;
        let bytes = (self.end - self.start) as u32 - HEADER_BYTES as u32;
        let marker = Header::Batch(Batch { synced, records, bytes }).encode(self.seeds, self.start);
        if let Some(front) = self.frames.first_chunk_mut::<HEADER_BYTES>() {
            *front = marker;
        }
    }

    /// The bytes in their order; nothing is copied.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.data.len() * 2 + 1);
        let mut done = 0;
        for (before, parts) in &self.data {
            slices.push(IoSlice::new(self.frames.get(done..*before).unwrap_or_default()));
            slices.extend(parts.iter().filter(|p| !p.is_empty()).map(|part| IoSlice::new(part)));
            done = *before;
        }
        slices.push(IoSlice::new(self.frames.get(done..).unwrap_or_default()));
        slices
    }
}
