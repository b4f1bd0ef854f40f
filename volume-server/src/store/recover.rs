//! Opening a volume: superblock, state, checkpoint, replay of the tail, and what to do about a torn end.
//!
//! Order after a torn write: persist that needles may be lost, set the tail aside in a file of its own, sync that, then cut,
//! write and sync what may be in memory only, and only then append. A crash in between finds the tail still there, or cut and
//! kept.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use hay_common::disk::{DiskFile, OpenMode, atomic_publish, is_full, read_exact_at};
use hay_common::ids::VolumeId;
use hay_common::limits::VOLUME_BYTES_MAX;
use hay_common::model::SizeClass;
use hay_needle::{Checkpoint, Index, Outcome, Replay, SUPERBLOCK_BYTES, State, Superblock, SuperblockError};
use parking_lot::{Mutex, RwLock};

use super::error::{At, StoreError};
use super::layout::{VolumePaths, read_file};
use super::queue::Queue;
use super::upkeep;
use super::volume::{Content, Shared, Volume};
use super::zero::ZeroAhead;

pub(super) const STATE_BYTES_MAX: u64 = 8 << 10;
/// A checkpoint is never longer: 28 bytes for each of the smallest needles of the largest volume.
const CHECKPOINT_BYTES_MAX: u64 = VOLUME_BYTES_MAX;
/// Pieces in which a torn tail is looked at and copied.
const PIECE_BYTES: usize = 1 << 20;
/// Torn tails of one offset that are kept.
const TORN_FILES_MAX: u32 = 1000;

/// A volume whose files can't be used. Its needles are not absent: they can't be read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenVolume {
    /// Which volume.
    pub id: VolumeId,
    /// What is wrong.
    pub reason: String,
}

/// What opening gives.
pub(crate) enum Opened {
    Volume(Arc<Volume>),
    Broken(BrokenVolume),
}

/// Opens a volume.
///
/// # Errors
/// What concerns the whole directory: another cluster, another version. What is wrong with one volume alone makes it
/// [`Opened::Broken`], until the next start.
pub(crate) fn open(shared: &Arc<Shared>, id: VolumeId) -> Result<Opened, StoreError> {
    open_at(shared, id, VolumePaths::new(&shared.config.dir, id))
}

/// The same of files that have other names.
pub(crate) fn open_at(shared: &Arc<Shared>, id: VolumeId, paths: VolumePaths) -> Result<Opened, StoreError> {
    match try_open(shared, id, paths) {
        Err(StoreError::Io { path, source }) => {
            Ok(broken(id, format!("{} could not be read or written: {source}", path.display())))
        }
        opened => opened,
    }
}

/// Whether a data file that no inventory names is a volume. Without a state, and with nothing in it, its making was cut
/// short by a program that wrote the data first: who else has it is not known, and it is made anew when a master says so.
///
/// # Errors
/// I/O.
pub(crate) fn is_made(shared: &Shared, id: VolumeId) -> Result<bool, StoreError> {
    let paths = VolumePaths::new(&shared.config.dir, id);
    let len = |path| shared.disk.file_len(path).at(path);
    Ok(len(&paths.state)?.is_some() || len(&paths.data)?.is_some_and(|len| len > SUPERBLOCK_BYTES as u64))
}

fn try_open(shared: &Arc<Shared>, id: VolumeId, paths: VolumePaths) -> Result<Opened, StoreError> {
    let data = shared.disk.open(&paths.data, OpenMode::ReadWrite).at(&paths.data)?;
    let upkeep = shared.disk.open(&paths.data, OpenMode::ReadWrite).at(&paths.data)?;
    let block = match superblock(shared, id, &paths, data.as_ref())? {
        Ok(block) => block,
        Err(reason) => return Ok(broken(id, reason)),
    };
    let state = match state(shared, &paths, &block, data.as_ref())? {
        Ok(state) => state,
        Err(reason) => return Ok(broken(id, reason)),
    };
    let found = replay(shared, &paths, &block, &state, data.as_ref())?;
    let volume = assemble(shared, paths, &block, state, data, upkeep, &found.outcome, found.index);
    volume.checkpoint_at.store(found.covered, Ordering::Relaxed);
    match settle(&volume, &found.outcome, found.covered) {
        Ok(()) => {}
        // Nothing is wrong with the volume: the next start may find room.
        Err(error @ StoreError::Io { .. }) if is_full_disk(&error) => return Err(error),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
            volume.fail(&format!("what its last write left could not be settled: {error}{cause}"));
        }
    }
    Ok(Opened::Volume(volume))
}

fn is_full_disk(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if is_full(source))
}

fn broken(id: VolumeId, reason: String) -> Opened {
    tracing::error!(volume = %id, reason, "a volume can't be opened");
    Opened::Broken(BrokenVolume { id, reason })
}

fn superblock(
    shared: &Shared,
    id: VolumeId,
    paths: &VolumePaths,
    data: &dyn DiskFile,
) -> Result<Result<Superblock, String>, StoreError> {
    let mut bytes = vec![0; SUPERBLOCK_BYTES];
    match read_exact_at(data, &mut bytes, 0) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err("its file is shorter than a superblock".to_owned()));
        }
        read => read.at(&paths.data)?,
    }
    let block = match Superblock::decode(&bytes) {
        Ok(block) => block,
        Err(error @ SuperblockError::Version(_)) => {
            return Err(StoreError::Unusable { path: paths.data.clone(), reason: error.to_string() });
        }
        Err(error) => return Ok(Err(error.to_string())),
    };
    let own = shared.config.cluster;
    if block.cluster != own {
        return Err(StoreError::ForeignCluster { dir: shared.config.dir.clone(), found: block.cluster, own });
    }
    if block.volume != id {
        return Ok(Err(format!("its superblock says that it is volume {}", block.volume)));
    }
    Ok(Ok(block))
}

/// The state file. None may lack: it says which servers must have an append.
fn state(
    shared: &Shared,
    paths: &VolumePaths,
    block: &Superblock,
    data: &dyn DiskFile,
) -> Result<Result<State, String>, StoreError> {
    let is_empty = data.len().at(&paths.data)? <= SUPERBLOCK_BYTES as u64;
    let Some(bytes) = read_file(shared.disk.as_ref(), &paths.state, STATE_BYTES_MAX).at(&paths.state)? else {
        return Ok(Err("its state file is missing".to_owned()));
    };
    Ok(match State::decode(&bytes) {
        Ok(state) if state.volume == block.volume && state.incarnation == block.incarnation => Ok(state),
        // A creation was repeated, and cut short between its two files: nothing was ever appended.
        Ok(other) if other.volume == block.volume && is_empty => {
            let epoch = other.epoch.max(block.epoch);
            let state = State { incarnation: block.incarnation, epoch, ..other };
            atomic_publish(shared.disk.as_ref(), &paths.state, &state.encode()).at(&paths.state)?;
            Ok(state)
        }
        Ok(_) => Err("its state file belongs to another writing of the volume".to_owned()),
        Err(error) => Err(format!("its state file can't be used: {error}")),
    })
}

/// The state of a new volume.
pub(crate) fn first_state(block: &Superblock) -> State {
    State {
        volume: block.volume,
        incarnation: block.incarnation,
        epoch: block.epoch,
        sealed: None,
        read_only: None,
        incomplete: false,
        filling: false,
        members: Vec::new(),
    }
}

struct Found {
    outcome: Outcome,
    index: Index,
    /// What the checkpoint covers.
    covered: u64,
}

fn replay(
    shared: &Shared,
    paths: &VolumePaths,
    block: &Superblock,
    state: &State,
    data: &dyn DiskFile,
) -> Result<Found, StoreError> {
    let (covered, mut index) = checkpoint(shared, paths, block);
    let len = data.len().at(&paths.data)?;
    let mut replay = Replay::new(block.seeds(), covered, len, covered.max(state.sealed.unwrap_or(0)));
    let mut window = Vec::new();
    while let Some(range) = replay.wants() {
        // A window is 1 MiB, or one record: it fits.
        window.resize((range.end - range.start) as usize, 0);
        read_exact_at(data, &mut window, range.start).at(&paths.data)?;
        replay.feed(&window, &mut index);
    }
    Ok(Found { outcome: replay.finish(), index, covered })
}

/// The newest checkpoint, if it is of this file. Any other is as good as none: the data stand for themselves.
fn checkpoint(shared: &Shared, paths: &VolumePaths, block: &Superblock) -> (u64, Index) {
    let none = (SUPERBLOCK_BYTES as u64, Index::new());
    let useless = |error: &dyn std::fmt::Display| {
        tracing::warn!(volume = %block.volume, %error, "its checkpoint can't be used; the whole file is replayed");
    };
    let bytes = match read_file(shared.disk.as_ref(), &paths.checkpoint, CHECKPOINT_BYTES_MAX) {
        Ok(None) => return none,
        Ok(Some(bytes)) => bytes,
        Err(error) => {
            useless(&error);
            return none;
        }
    };
    match Checkpoint::decode(&bytes, block.volume, block.incarnation) {
        Ok((head, index)) => (head.covered, index),
        Err(error) => {
            useless(&error);
            none
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the one value that is put together here")]
fn assemble(
    shared: &Arc<Shared>,
    paths: VolumePaths,
    block: &Superblock,
    state: State,
    data: Arc<dyn DiskFile>,
    upkeep: Arc<dyn DiskFile>,
    outcome: &Outcome,
    index: Index,
) -> Arc<Volume> {
    let ahead = match block.class {
        SizeClass::Small => shared.config.zero_ahead_bytes,
        SizeClass::Large => 0,
    };
    Arc::new(Volume {
        id: block.volume,
        class: block.class,
        incarnation: block.incarnation,
        seeds: block.seeds(),
        paths,
        shared: shared.clone(),
        data,
        upkeep,
        content: RwLock::new(Content { index, end: outcome.end, garbage: 0 }),
        state: ArcSwap::from_pointee(state),
        state_change: Mutex::new(()),
        queue: Queue::new(block.volume),
        turn: OnceLock::new(),
        sealing: Mutex::new(()),
        zero: ZeroAhead::new(outcome.end, ahead),
        checkpoint_at: AtomicU64::new(SUPERBLOCK_BYTES as u64),
        checkpoint_due: AtomicBool::new(false),
        checkpointing: Mutex::new(()),
        reads: AtomicU64::new(0),
        retired: AtomicBool::new(false),
    })
}

/// Acts on what the replay found: damage makes it read-only and untouched, a torn tail is set aside and cut.
fn settle(volume: &Volume, outcome: &Outcome, covered: u64) -> Result<(), StoreError> {
    // Before anything that makes the loss harder to see.
    let marked = match outcome.lost || outcome.torn.is_some() {
        true => volume.mark_incomplete().at(&volume.paths.state),
        false => Ok(()),
    };
    if outcome.corrupt_count > 0 {
        let (at, why) = outcome.corrupt.first().map_or((0, ""), |d| (d.range.start, d.reason.as_str()));
        volume.shared.meters.corrupt.increment(outcome.corrupt_count);
        let places = outcome.corrupt_count;
        volume.fail(&format!(
            "{places} damaged places below its synced length, the first at offset {at}: {why}"
        ));
    }
    let state = volume.state.load();
    if state.read_only.is_some() {
        // Nothing is cut or written where it is not known what is whole. Each opening finds the damage again.
        return Ok(());
    }
    marked?;
    let path = &volume.paths.data;
    if let Some(torn) = outcome.torn {
        set_aside(volume, torn)?;
        volume.data.set_len(torn).at(path)?;
        return harden(volume, outcome.synced.min(torn), torn).at(path);
    }
    let len = volume.data.len().at(path)?;
    if state.sealed.is_some() && len > outcome.end {
        upkeep::truncate(volume, outcome.end);
        return Ok(());
    }
    if outcome.end > covered {
        harden(volume, outcome.synced, outcome.end).at(path)?;
    }
    volume.zero.reach(len);
    Ok(())
}

/// Puts on disk what a killed process wrote and may not have synced, before anything relies on it. Written anew: after a
/// sync that failed the kernel holds such bytes for clean, and another sync alone would call them safe.
fn harden(volume: &Volume, from: u64, to: u64) -> io::Result<()> {
    let data = volume.data.as_ref();
    pieces(data, from, to, |at, piece| data.write_all_at(&[IoSlice::new(piece)], at))?;
    data.sync_data()
}

/// Copies what follows `from`, the zeros at its end apart, to a file beside the volume, durably.
fn set_aside(volume: &Volume, from: u64) -> Result<(), StoreError> {
    let path = &volume.paths.data;
    let disk = volume.shared.disk.as_ref();
    let mut to = from;
    pieces(volume.data.as_ref(), from, volume.data.len().at(path)?, |at, piece| {
        if let Some(last) = piece.iter().rposition(|b| *b != 0) {
            to = at + last as u64 + 1;
        }
        Ok(())
    })
    .at(path)?;
    let mut attempt = 0;
    let (beside, file) = loop {
        let beside = volume.paths.torn(from, attempt);
        match disk.open(&beside, OpenMode::CreateNew) {
            Ok(file) => break (beside, file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < TORN_FILES_MAX => attempt += 1,
            Err(e) => return Err(e).at(&beside),
        }
    };
    pieces(volume.data.as_ref(), from, to, |at, piece| file.write_all_at(&[IoSlice::new(piece)], at - from))
        .at(&beside)?;
    file.sync_data().at(&beside)?;
    disk.sync_dir(&volume.paths.dir).at(&volume.paths.dir)?;
    volume.shared.meters.torn_tails.increment(1);
    tracing::warn!(
        volume = %volume.id, offset = from, bytes = to - from, kept_in = %beside.display(),
        "the last write was torn, its appends were never acknowledged; set aside and cut"
    );
    Ok(())
}

fn pieces(
    file: &dyn DiskFile,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = from;
    while at < to {
        let len = PIECE_BYTES.min(usize::try_from(to - at).unwrap_or(PIECE_BYTES));
        let part = piece.get_mut(..len).unwrap_or_default();
        read_exact_at(file, part, at)?;
        each(at, part)?;
        at += len as u64;
    }
    Ok(())
}
