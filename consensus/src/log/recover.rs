//! Opening a log: what a crash left is told from what must not be, and only the former is mended.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hay_common::disk::{SharedDisk, read_exact_at};
use hay_common::limits::{LOG_SEGMENT_BYTES_FIRST, MIB};

use crate::error::StartError;
use crate::types::LogId;

use super::hard_state::HardStateFile;
use super::index::{LogIndex, Place};
use super::prepare::{Order, Preparer, prepare};
use super::segment::{self, FIRST_RECORD, Name, Scan, Segment};
use super::writer::{LogConfig, LogHandle, Opened};

struct Found {
    segment: Arc<Segment>,
    scan: Scan,
}

/// Opens or makes the log in `config.dir` and starts its threads.
pub(crate) fn open(config: LogConfig, disk: SharedDisk) -> Result<LogHandle, StartError> {
    let dir = config.dir.clone();
    let io_at = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| StartError::Io { what, path, source }
    };
    disk.create_dir_all(&dir).map_err(io_at("can't create", &dir))?;
    if let Some(parent) = dir.parent() {
        disk.sync_dir(parent).map_err(io_at("can't sync", parent))?;
    }
    let mut hard = HardStateFile::open(disk.clone(), &dir)?;
    let (generations, spares) = list(&disk, &dir)?;
    let mut max_generation = generations.iter().chain(spares.iter()).copied().max().unwrap_or(0);
    let found = generations.iter().map(|g| read(&disk, &config, *g)).collect::<Result<Vec<_>, _>>()?;

    let tail = judge(&found, &hard)?;
    let mut spares: Vec<PathBuf> = spares.iter().map(|g| dir.join(segment::spare_name(*g))).collect();
    let kept = mend(&disk, &dir, &found, &tail, &mut spares).map_err(io_at("can't mend the log in", &dir))?;
    if hard.get().truncating_from.is_some() {
        hard.change(|state| state.truncating_from = None)
            .map_err(io_at("can't write the log's state in", &dir))?;
    }

    let mut live: Vec<Arc<Segment>> = kept.live;
    let mut prepared = kept.prepared;
    if live.is_empty() {
        let first = match prepared.take() {
            Some(segment) => segment,
            None => {
                max_generation += 1;
                let bytes = LOG_SEGMENT_BYTES_FIRST.min(config.segment_bytes);
                let order = Order { generation: max_generation, bytes, spare: None };
                Arc::new(
                    prepare(&disk, &dir, config.cluster, &order)
                        .map_err(io_at("can't make a segment in", &dir))?,
                )
            }
        };
        live.push(first);
    }
    let index = LogIndex::new(hard.get().purged, tail.places);
    let preparer = Preparer::start(&config.name, disk.clone(), dir.clone(), config.cluster)
        .map_err(io_at("can't start a thread for", &dir))?;
    let opened = Opened {
        hard,
        index,
        live,
        prepared,
        spares,
        end: kept.end,
        max_generation,
        committed: tail.committed,
    };
    LogHandle::start(config, opened, preparer, disk).map_err(io_at("can't start a thread for", &dir))
}

/// Generations of segments and of spares, in order. What was never finished goes.
fn list(disk: &SharedDisk, dir: &Path) -> Result<(Vec<u64>, Vec<u64>), StartError> {
    let io = |source| StartError::Io { what: "can't list", path: dir.to_owned(), source };
    let (mut live, mut spares) = (Vec::new(), Vec::new());
    for name in disk.read_dir(dir).map_err(io)? {
        match segment::parse_name(&name) {
            Name::Live(generation) => live.push(generation),
            Name::Spare(generation) => spares.push(generation),
            Name::Unfinished => disk.remove_file(&dir.join(&name)).map_err(io)?,
            Name::Other if name == Path::new("state") => {}
            Name::Other => {
                tracing::warn!(path = %dir.join(&name).display(), "an unknown file in the log's directory")
            }
        }
    }
    live.sort_unstable();
    spares.sort_unstable();
    Ok((live, spares))
}

fn read(disk: &SharedDisk, config: &LogConfig, generation: u64) -> Result<Found, StartError> {
    let path = config.dir.join(segment::live_name(generation));
    let (file, bytes) = segment::read_whole(disk.as_ref(), &path).map_err(|source| StartError::Io {
        what: "can't read",
        path: path.clone(),
        source,
    })?;
    segment::check_header(&path, &bytes, config.cluster, generation)?;
    let scan = segment::scan(&bytes, generation);
    let segment = Arc::new(Segment { generation, file, path, capacity: bytes.len() as u64 });
    Ok(Found { segment, scan })
}

/// What the segments add up to.
struct Tail {
    places: Vec<(LogId, Place)>,
    /// Which of them is appended to and from where, if any has records worth keeping.
    active: Option<(usize, u64)>,
    committed: Option<u64>,
}

/// Puts the segments' records together, or says why they can't be whole.
fn judge(found: &[Found], hard: &HardStateFile) -> Result<Tail, StartError> {
    let purged = hard.get().purged.map(|id| id.index);
    let cut = hard.get().truncating_from.unwrap_or(u64::MAX);
    let first = purged.map_or(0, |index| index + 1);
    let mut expected = first;
    let mut tail = Tail { places: Vec::new(), active: None, committed: None };
    for (number, Found { segment, scan }) in found.iter().enumerate() {
        let corrupt = |what: String| StartError::Corrupt { path: segment.path.clone(), what };
        tail.committed = tail.committed.max(scan.committed);
        for spot in &scan.spots {
            if spot.id.index >= cut {
                // A truncation was under way: from here on nothing counts, here or in later segments.
                tail.active = Some((number, spot.offset));
                return Ok(tail);
            }
            if spot.id.index >= first {
                if spot.id.index != expected {
                    let what = format!("it has entry {} where entry {expected} must be", spot.id.index);
                    return Err(corrupt(what));
                }
                let place = Place { segment: segment.clone(), offset: spot.offset, length: spot.length };
                tail.places.push((spot.id, place));
                expected += 1;
            }
        }
        if !scan.spots.is_empty() {
            tail.active = Some((number, scan.end));
        }
        check_end(segment, scan, expected >= cut)?;
    }
    // A segment that ends below the purged position can't be appended to: its indices would have a gap.
    let last = tail.active.and_then(|(number, _)| found.get(number)).and_then(|f| f.scan.spots.last());
    if purged > last.map(|spot| spot.id.index) {
        tail.active = None;
    }
    Ok(tail)
}

/// Damage below what was durable is no torn tail.
fn check_end(segment: &Segment, scan: &Scan, truncated_here: bool) -> Result<(), StartError> {
    if let Some(found) = scan.newer {
        return Err(StartError::NewerVersion { path: segment.path.clone(), found: found.into(), known: 1 });
    }
    if scan.synced_behind > scan.end && !truncated_here {
        let what = format!(
            "the record at byte {} can't be read, but {} bytes were durable there",
            scan.end, scan.synced_behind
        );
        return Err(StartError::Corrupt { path: segment.path.clone(), what });
    }
    Ok(())
}

struct Kept {
    live: Vec<Arc<Segment>>,
    prepared: Option<Arc<Segment>>,
    end: u64,
}

/// Zeroes a torn tail and sets aside the segments that hold nothing: those in front of the first entry, and those
/// behind the last but one that may serve as the next.
fn mend(
    disk: &SharedDisk,
    dir: &Path,
    found: &[Found],
    tail: &Tail,
    spares: &mut Vec<PathBuf>,
) -> io::Result<Kept> {
    let oldest = tail.places.first().map(|(_, place)| place.segment.generation);
    let active = tail.active.and_then(|(number, end)| found.get(number).map(|f| (f, end)));
    let mut kept = Kept { live: Vec::new(), prepared: None, end: FIRST_RECORD };
    let mut emptied = Vec::new();
    for Found { segment, scan } in found {
        match active {
            Some((active, end)) if active.segment.generation == segment.generation => {
                kept.end = end;
                kept.live.push(segment.clone());
            }
            Some((active, _)) if segment.generation < active.segment.generation => {
                if oldest.is_some_and(|oldest| segment.generation >= oldest) {
                    kept.live.push(segment.clone());
                } else {
                    emptied.push(segment);
                }
            }
            _ if scan.spots.is_empty() && scan.stale_end == scan.end && kept.prepared.is_none() => {
                kept.prepared = Some(segment.clone());
            }
            _ => emptied.push(segment),
        }
    }
    // From the last backwards: a crash in between must not leave a gap.
    for segment in emptied.iter().rev() {
        let spare = dir.join(segment::spare_name(segment.generation));
        disk.rename(&segment.path, &spare)?;
        spares.push(spare);
    }
    if !emptied.is_empty() {
        disk.sync_dir(dir)?;
    }
    if let Some((active, end)) = active {
        write_again(active, end)?;
    }
    if let Some((active, end)) = active
        && active.scan.stale_end.max(active.scan.end) > end
    {
        tracing::info!(path = %active.segment.path.display(), at = end, "cut a torn tail of the log");
        active.segment.file.zero_ahead(end, active.scan.stale_end.max(active.scan.end))?;
    }
    Ok(kept)
}

/// Makes durable what of the log's tail may not be. A process that died between write and sync leaves it in the kernel's
/// memory alone; one whose sync failed leaves pages there that count as clean and that no further sync writes. Both look
/// whole when they are read, so the same bytes are written to the same place before anything is built on them.
fn write_again(active: &Found, end: u64) -> io::Result<()> {
    let Some(last) = active.scan.spots.iter().rev().find(|spot| spot.offset < end) else { return Ok(()) };
    let file = active.segment.file.as_ref();
    let mut at = last.synced.clamp(FIRST_RECORD, end);
    let mut piece = vec![0; MIB.min(usize::try_from(end - at).unwrap_or(MIB))];
    while at < end {
        let length = piece.len().min(usize::try_from(end - at).unwrap_or(MIB));
        let part = piece.get_mut(..length).unwrap_or_default();
        read_exact_at(file, part, at)?;
        file.write_all_at(&[IoSlice::new(part)], at)?;
        at += length as u64;
    }
    file.sync_data()
}
