//! What a volume's own short-lived threads do: zeroing ahead, checkpoints; and the end of a file at its seal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hay_common::disk::atomic_publish;
use hay_common::limits::{CHECKPOINT_TAIL_FACTOR, ZERO_STEP_BYTES};
use hay_common::model::Durability;
use hay_common::work;
use hay_needle::{Checkpoint, Index};

use super::volume::Volume;

/// Starts zeroing where too little is zeroed. For the appender alone.
pub(crate) fn zero_ahead_if_due(volume: &Arc<Volume>) {
    if volume.writable().is_err() || !volume.shared.space.has_room_for(ZERO_STEP_BYTES) {
        return;
    }
    let end = volume.content.read().end;
    let Some(target) = volume.zero.due(end, volume.shared.config.volume_bytes_max) else { return };
    let own = volume.clone();
    let disk = volume.shared.disk.as_ref();
    let started = work::beside(disk, format!("zero-{}", volume.id), move || zero(&own, target));
    if let Err(error) = started {
        volume.zero.abandon();
        tracing::warn!(volume = %volume.id, %error, "no thread for zeroing ahead; appends grow the file meanwhile");
    }
}

fn zero(volume: &Volume, target: u64) {
    let shared = &volume.shared;
    let zeroed = volume.zero.run(target, |from, to| {
        if !shared.space.has_room_for(to - from) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        volume.upkeep.zero_ahead(from, to)?;
        shared.space.take(to - from);
        shared.meters.zeroed_bytes.increment(to - from);
        Ok(())
    });
    if let Err(error) = zeroed {
        // It syncs the same file: after such an error nobody knows what of it is on disk.
        volume.fail(&format!("zeroing ahead failed: {error}"));
    }
}

/// Starts a checkpoint where the tail has become long.
pub(crate) fn checkpoint_if_due(volume: &Arc<Volume>) {
    let (end, needles) = end_and_needles(volume);
    let tail = end.saturating_sub(volume.checkpoint_at.load(Ordering::Relaxed));
    if tail < tail_due(volume.shared.config.checkpoint_every_bytes, needles)
        || volume.checkpoint_due.swap(true, Ordering::AcqRel)
    {
        return;
    }
    /// Over, however it ended: after a fault in one the next may be written.
    struct Over(Arc<Volume>);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.checkpoint_due.store(false, Ordering::Release);
        }
    }
    let over = Over(volume.clone());
    let disk = volume.shared.disk.as_ref();
    let started = work::beside(disk, format!("checkpoint-{}", volume.id), move || checkpoint_now(&over.0));
    if let Err(error) = started {
        tracing::warn!(volume = %volume.id, %error, "no thread for a checkpoint; the next start replays more");
    }
}

/// Bytes of tail from which on a checkpoint is written. It holds all needles, so in a volume full of small ones it is long,
/// and is written less often; but the tail must stay short enough to be replayed at the next start.
fn tail_due(every: u64, needles: usize) -> u64 {
    let wanted = CHECKPOINT_TAIL_FACTOR * Checkpoint::len_of(needles);
    wanted.clamp(every, every.saturating_mul(CHECKPOINT_TAIL_FACTOR))
}

fn end_and_needles(volume: &Volume) -> (u64, usize) {
    let content = volume.content.read();
    (content.end, content.index.len())
}

/// Writes a checkpoint. A failure costs time at the next start, nothing else.
pub(crate) fn checkpoint_now(volume: &Volume) {
    let _one_at_a_time = volume.checkpointing.lock();
    if volume.retired.load(Ordering::Acquire) {
        return;
    }
    let (covered, needles) = end_and_needles(volume);
    if covered == volume.checkpoint_at.load(Ordering::Relaxed) {
        return;
    }
    let head = Checkpoint { volume: volume.id, incarnation: volume.incarnation, covered };
    let mut encoder = head.encoder(needles);
    for shard in 0..Index::SHARDS {
        // A lock for each: behind one for all of them an append would wait, and behind the append every reader.
        encoder.add(volume.content.read().index.shard(shard));
    }
    let bytes = encoder.finish();
    // A checkpoint vouches that all it covers is on disk. In durability sync it is before the index knows it.
    if volume.shared.config.durability == Durability::Async
        && let Err(error) = volume.upkeep.sync_data()
    {
        volume.fail(&format!("a sync failed: {error}"));
        return;
    }
    match atomic_publish(volume.shared.disk.as_ref(), &volume.paths.checkpoint, &bytes) {
        Ok(()) => {
            volume.checkpoint_at.store(covered, Ordering::Relaxed);
            volume.shared.meters.checkpoints.increment(1);
        }
        Err(error) => {
            tracing::warn!(volume = %volume.id, %error, "no checkpoint; the next start replays more")
        }
    }
}

/// Gives back the zeros behind the last record of a sealed volume. Left undone by a crash, the next start does it.
pub(crate) fn truncate(volume: &Volume, end: u64) {
    match volume.data.set_len(end) {
        Ok(()) => {
            if let Err(error) = volume.data.sync_data() {
                volume.fail(&format!("a sync failed: {error}"));
            }
        }
        Err(error) => {
            tracing::warn!(volume = %volume.id, %error, "the zeros behind a sealed volume stay for now")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tail_due;

    #[test]
    fn a_volume_of_many_needles_is_checkpointed_less_often_within_bounds() {
        let every = 256 << 20;
        assert_eq!(tail_due(every, 0), every);
        assert_eq!(tail_due(every, 1 << 20), every);
        let tail = tail_due(every, 8 << 20);
        assert!(tail >= 4 * 28 * (8 << 20) && tail < 4 * every, "{tail}");
        assert_eq!(tail_due(every, 1 << 30), 4 * every);
    }
}
