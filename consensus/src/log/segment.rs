//! A segment: a file written ahead, filled with records from its beginning, and used again under a new generation.
//!
//! ```text
//!  0 magic "hayRaftL" 8 | 8 format u32 | 12 zero u32 | 16 cluster id 16 | 32 generation u64
//! 40 CRC32C of the 40 bytes before u32 | 44 zeros up to 64 | 64 records
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hay_common::disk::{Disk, DiskFile};
use hay_common::ids::ClusterId;

use crate::error::StartError;
use crate::types::LogId;

use super::record::{ALIGN, Found, HEADER_BYTES, Header};

/// Where the first record stands.
pub(crate) const FIRST_RECORD: u64 = 64;
const MAGIC: [u8; 8] = *b"hayRaftL";
const FORMAT: u32 = 1;

/// An open segment.
pub(crate) struct Segment {
    pub(crate) generation: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    /// Bytes that were written ahead. Records beyond make the file grow, which costs but is right.
    pub(crate) capacity: u64,
}

/// The name of a segment in use.
pub(crate) fn live_name(generation: u64) -> String {
    format!("log-{generation:016x}")
}

/// The name of an emptied segment.
pub(crate) fn spare_name(generation: u64) -> String {
    format!("spare-{generation:016x}")
}

/// What a name in the log's directory stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Live(u64),
    Spare(u64),
    /// Left by a crash before it was whole.
    Unfinished,
    Other,
}

pub(crate) fn parse_name(name: &Path) -> Name {
    let Some(name) = name.to_str() else { return Name::Other };
    if name.ends_with(".new") {
        return Name::Unfinished;
    }
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    let live = name.strip_prefix("log-").and_then(number).map(Name::Live);
    live.or_else(|| name.strip_prefix("spare-").and_then(number).map(Name::Spare)).unwrap_or(Name::Other)
}

/// Writes a segment's header; not yet synced.
pub(crate) fn write_header(file: &dyn DiskFile, cluster: ClusterId, generation: u64) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(FIRST_RECORD as usize);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(cluster.as_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(FIRST_RECORD as usize, 0);
    file.write_all_at(&[IoSlice::new(&bytes)], 0)
}

/// Checks a segment's header against what it should be.
pub(crate) fn check_header(
    path: &Path,
    bytes: &[u8],
    cluster: ClusterId,
    generation: u64,
) -> Result<(), StartError> {
    let corrupt = |what: &str| StartError::Corrupt { path: path.to_owned(), what: what.to_owned() };
    let head = bytes.first_chunk::<64>().ok_or_else(|| corrupt("it is shorter than its header"))?;
    let (covered, rest) = head.split_at(40);
    if !covered.starts_with(&MAGIC) || rest.get(..4) != Some(&crc32c::crc32c(covered).to_le_bytes()) {
        return Err(corrupt("its header's checksum does not match"));
    }
    let format = covered.get(8..12).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if format != FORMAT {
        return Err(StartError::NewerVersion { path: path.to_owned(), found: format, known: FORMAT });
    }
    if covered.get(16..32) != Some(cluster.as_bytes().as_slice()) {
        let found =
            covered.get(16..32).and_then(ClusterId::from_slice).map(|c| c.to_string()).unwrap_or_default();
        return Err(StartError::Foreign {
            path: path.to_owned(),
            found: format!("cluster {found}"),
            wanted: format!("cluster {cluster}"),
        });
    }
    if covered.get(32..40) != Some(generation.to_le_bytes().as_slice()) {
        return Err(corrupt("its header has another generation than its name"));
    }
    Ok(())
}

/// Where one entry stands in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) id: LogId,
    pub(crate) offset: u64,
    /// Bytes of data.
    pub(crate) length: u32,
    /// Bytes of the segment that were durable before it was written.
    pub(crate) synced: u64,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The whole records from the front, their indices without a gap.
    pub(crate) spots: Vec<Spot>,
    /// Where the first byte stands that is no such record.
    pub(crate) end: u64,
    /// The greatest index known committed when one of these records was written.
    pub(crate) committed: Option<u64>,
    /// The most bytes that a header behind `end` says were durable before it.
    pub(crate) synced_behind: u64,
    /// Where the last header behind `end` ends; `end` where there is none.
    pub(crate) stale_end: u64,
    /// A format that this program does not know, where `end` was met.
    pub(crate) newer: Option<u16>,
}

/// Reads the records of a segment. Never fails: what it means is judged by who knows the other segments.
pub(crate) fn scan(bytes: &[u8], generation: u64) -> Scan {
    let mut scan = Scan { end: FIRST_RECORD, ..Scan::default() };
    while let Some(header) = whole_record(bytes, scan.end, generation, &mut scan.newer) {
        if scan.spots.last().is_some_and(|last| last.id.index + 1 != header.index) {
            break;
        }
        let leader = openraft::CommittedLeaderId::new(header.term, header.leader);
        scan.spots.push(Spot {
            id: LogId::new(leader, header.index),
            offset: scan.end,
            length: header.length,
            synced: header.synced,
        });
        scan.committed = scan.committed.max(header.committed);
        scan.end += header.record_bytes();
    }
    look_behind(bytes, generation, &mut scan);
    scan
}

fn whole_record(bytes: &[u8], at: u64, generation: u64, newer: &mut Option<u16>) -> Option<Header> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    match Header::find(rest) {
        Found::Header(header) if header.generation == generation => {
            let data = rest.get(HEADER_BYTES..HEADER_BYTES + header.length as usize)?;
            header.fits(data).then_some(header)
        }
        Found::Newer(format) => {
            *newer = Some(format);
            None
        }
        Found::Header(_) | Found::Nothing => None,
    }
}

/// Headers of this generation behind the end: they tell a torn tail from damage, and must go before the next append.
fn look_behind(bytes: &[u8], generation: u64, scan: &mut Scan) {
    scan.stale_end = scan.end;
    let mut at = scan.end as usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        if let Found::Header(header) = Header::find(rest)
            && header.generation == generation
        {
            scan.synced_behind = scan.synced_behind.max(header.synced);
            scan.stale_end = (at + HEADER_BYTES) as u64;
        }
        at += ALIGN;
    }
}

/// Opens a segment that exists and reads it whole.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path) -> io::Result<(Arc<dyn DiskFile>, Vec<u8>)> {
    let file = disk.open(path, hay_common::disk::OpenMode::ReadWrite)?;
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    hay_common::disk::read_exact_at(file.as_ref(), &mut bytes, 0)?;
    Ok((file, bytes))
}
