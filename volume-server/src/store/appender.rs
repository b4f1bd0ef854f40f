//! The one thread that writes to a volume: it gathers what waits, writes once, syncs once, enters the index, answers.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hay_common::disk::is_full;
use hay_common::ids::Epoch;
use hay_common::limits::ASYNC_SYNC_EVERY;
use hay_common::model::{Durability, SizeClass};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::draft::{Draft, Rules};
use super::error::{AppendError, At, StoreError};
use super::gather::Company;
use super::queue::{Answers, Control, Submission, Work};
use super::upkeep;
use super::volume::Volume;

/// Starts the appender of a writable volume.
pub(crate) fn start(volume: Arc<Volume>) -> io::Result<()> {
    let name = format!("append-{}", volume.id);
    let synced = volume.content.read().end;
    let is_simulated = volume.shared.disk.takes().is_some();
    let appender = Appender {
        volume,
        synced,
        company: Company::default(),
        sync_took: Duration::ZERO,
        dirty_since: None,
    };
    if is_simulated {
        in_turn(appender);
        return Ok(());
    }
    std::thread::Builder::new().name(name).spawn(move || appender.run())?;
    Ok(())
}

/// In a simulation: a task instead of a thread, so that what it does has its place among everything else. A command is
/// carried out by whoever gives it ([`Volume::take_turn`]), because that one would wait for it on the same thread.
fn in_turn(appender: Appender) {
    let volume = appender.volume.clone();
    upkeep::zero_ahead_if_due(&volume);
    let appender = Arc::new(Mutex::new(appender));
    // An opened volume has one appender in its life.
    let _ = volume.turn.set(Arc::downgrade(&appender));
    volume.queue.bell();
    tokio::spawn(async move {
        loop {
            let patience = appender.lock().sync_due_in();
            match patience {
                None => volume.queue.bell().notified().await,
                Some(patience) => {
                    let _ = tokio::time::timeout(patience, volume.queue.bell().notified()).await;
                }
            }
            tokio::time::sleep(volume.shared.disk.takes().unwrap_or_default()).await;
            if appender.lock().turn().is_break() {
                return;
            }
        }
    });
}

pub(crate) struct Appender {
    volume: Arc<Volume>,
    /// All below is on disk.
    synced: u64,
    /// In durability async: since when something was not, on the monotonic clock.
    dirty_since: Option<Duration>,
    company: Company,
    /// How long the last sync took.
    sync_took: Duration,
}

/// Callers of one batch, each with the answers it gets if the write succeeds.
type Callers = Vec<(oneshot::Sender<Answers>, Answers)>;

impl Drop for Appender {
    /// A fault of this thread must not look like a queue that moves slowly.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.volume.fail("its appender stopped by a fault in the program");
        }
        self.volume.queue.close();
        loop {
            match self.volume.queue.take(Some(Duration::ZERO), None) {
                Work::Append(left) => refuse(left, &self.unwritable()),
                // Dropped: whoever asked sees that the appender is gone.
                Work::Control(_) => {}
                Work::Idle | Work::Over => return,
            }
        }
    }
}

impl Appender {
    fn run(mut self) {
        upkeep::zero_ahead_if_due(&self.volume);
        loop {
            let patience = self.sync_due_in();
            if patience == Some(Duration::ZERO) {
                self.sync_if_dirty();
                continue;
            }
            let gather = self.company.gather();
            let work = self.volume.queue.take(patience, gather);
            if self.carry_out(work).is_break() {
                return;
            }
        }
    }

    /// Does all that waits, and waits for nothing: in a simulation.
    pub(crate) fn turn(&mut self) -> ControlFlow<()> {
        loop {
            match self.volume.queue.take(Some(Duration::ZERO), None) {
                Work::Idle if self.sync_due_in() != Some(Duration::ZERO) => return ControlFlow::Continue(()),
                work => self.carry_out(work)?,
            }
        }
    }

    fn carry_out(&mut self, work: Work) -> ControlFlow<()> {
        match work {
            Work::Append(submissions) => self.append(submissions),
            Work::Control(Control::Seal { epoch, done }) => {
                let volume = self.volume.clone();
                let _sealing = volume.sealing.lock();
                let sealed = self.seal(epoch);
                let is_over = sealed.is_ok();
                if is_over {
                    // Before the answer: whoever asks again next finds no appender, and not one about to end.
                    self.volume.queue.close();
                }
                // Whoever asked may have gone.
                let _ = done.send(sealed);
                if is_over {
                    self.tidy();
                    return ControlFlow::Break(());
                }
            }
            Work::Control(Control::Close { done }) => {
                let closed = self.close();
                let _ = done.send(closed);
                return ControlFlow::Break(());
            }
            Work::Idle => self.sync_if_dirty(),
            Work::Over => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// In durability async: how long what was written may still wait for its sync, whether appends go on or not.
    fn sync_due_in(&mut self) -> Option<Duration> {
        // A checkpoint vouches for all that it covers.
        self.synced = self.synced.max(self.volume.checkpoint_at.load(Ordering::Relaxed));
        if self.synced >= self.volume.content.read().end || self.volume.state.load().read_only.is_some() {
            self.dirty_since = None;
            return None;
        }
        let now = self.volume.shared.clock.monotonic();
        let since = *self.dirty_since.get_or_insert(now);
        Some(ASYNC_SYNC_EVERY.saturating_sub(now.saturating_sub(since)))
    }

    fn append(&mut self, submissions: Vec<Submission>) {
        let volume = self.volume.clone();
        if let Err(error) = volume.writable().and_then(|()| self.raise_epoch(&submissions)) {
            return refuse(submissions, &error);
        }
        let (mut draft, callers) = self.draft(submissions);
        let outcome = if draft.is_empty() { Ok(()) } else { self.commit(&mut draft) };
        if outcome.is_ok() && !draft.is_empty() {
            self.enter(&draft);
        }
        let needles = callers.iter().map(|(_, answers)| answers.len()).sum();
        self.company.batch(needles, volume.queue.needles(), self.sync_took);
        let meters = &volume.shared.meters;
        for (reply, mut answers) in callers {
            if let Err(error) = &outcome {
                answers.iter_mut().filter(|a| a.is_ok()).for_each(|a| *a = Err(error.clone()));
            }
            let refused = answers.iter().filter(|a| a.is_err()).count();
            if refused > 0 {
                meters.appends_refused.increment(refused as u64);
            }
            // A caller that has gone finds its needle stored: a retry draws another cookie.
            let _ = reply.send(answers);
        }
        upkeep::zero_ahead_if_due(&volume);
        upkeep::checkpoint_if_due(&volume);
    }

    /// An append of a higher epoch than any before: persisted first, so that lower ones stay refused after a crash.
    fn raise_epoch(&self, submissions: &[Submission]) -> Result<(), AppendError> {
        let highest = submissions.iter().flat_map(|s| &s.needles).map(|n| n.epoch).max().unwrap_or_default();
        if highest <= self.volume.state.load().epoch {
            return Ok(());
        }
        self.volume.change_state(|state| state.epoch = state.epoch.max(highest)).map_err(|error| {
            if is_full(&error) {
                return AppendError::StorageFull;
            }
            self.volume.fail(&format!("its epoch could not be persisted: {error}"));
            self.unwritable()
        })
    }

    fn draft(&self, submissions: Vec<Submission>) -> (Draft, Callers) {
        let volume = &self.volume;
        let content = volume.content.read();
        let epoch = volume.state.load().epoch;
        let zeroed_to = volume.zero.zeroed_to();
        let start = content.end;
        // What lies in space zeroed ahead takes no more of the disk; the reserve holds for it all the same.
        let has_room_for =
            |bytes: u64| volume.shared.space.has_room_for((start + bytes).saturating_sub(zeroed_to));
        let rules = Rules {
            volume: volume.id,
            epoch,
            index: &content.index,
            bytes_max: volume.shared.config.volume_bytes_max,
            has_room_for: &has_room_for,
        };
        let mut draft = Draft::new(volume.seeds, start);
        let callers = submissions.into_iter().map(|submission| {
            let answers = submission.needles.into_iter().map(|needle| draft.add(needle, &rules)).collect();
            (submission.reply, answers)
        });
        let callers = callers.collect();
        (draft, callers)
    }

    fn commit(&mut self, draft: &mut Draft) -> Result<(), AppendError> {
        let volume = self.volume.clone();
        volume.zero.reach(draft.end());
        draft.close(self.synced);
        if let Err(error) = volume.data.write_all_at(&draft.slices(), draft.start()) {
            return Err(self.write_failed(&error, draft));
        }
        if volume.class == SizeClass::Large {
            volume.shared.space.take(draft.end() - draft.start());
        }
        if volume.shared.config.durability == Durability::Sync {
            self.sync(draft.end())?;
        }
        Ok(())
    }

    /// One `fdatasync`. After an error nobody knows what is on disk: never again on this volume.
    fn sync(&mut self, end: u64) -> Result<(), AppendError> {
        let clock = &self.volume.shared.clock;
        let before = clock.monotonic();
        let synced = self.volume.data.sync_data();
        let meters = &self.volume.shared.meters;
        self.sync_took = clock.monotonic().saturating_sub(before);
        meters.sync_seconds.record(self.sync_took);
        meters.syncs.increment(1);
        match synced {
            Ok(()) => {
                self.synced = end;
                Ok(())
            }
            Err(error) => {
                self.volume.fail(&format!("a sync failed: {error}"));
                Err(self.unwritable())
            }
        }
    }

    /// A full disk is no fault: what the write left is undone and the volume goes on. Everything else is one.
    fn write_failed(&self, error: &io::Error, draft: &Draft) -> AppendError {
        let volume = &self.volume;
        if !is_full(error) {
            volume.fail(&format!("a write failed: {error}"));
            return self.unwritable();
        }
        volume.shared.space.exhausted();
        if let Err(undo_error) = undo(volume, draft) {
            volume.fail(&format!("a write met a full disk and could not be undone: {undo_error}"));
            return self.unwritable();
        }
        tracing::warn!(volume = %volume.id, "the disk is full");
        AppendError::StorageFull
    }

    fn unwritable(&self) -> AppendError {
        self.volume.writable().err().unwrap_or(AppendError::Closing)
    }

    /// Only now may anybody read them.
    fn enter(&self, draft: &Draft) {
        let mut content = self.volume.content.write();
        for (key, cookie, slot) in &draft.entries {
            content.index.insert(*key, *cookie, *slot);
        }
        content.end = draft.end();
        drop(content);
        let meters = &self.volume.shared.meters;
        meters.appends.increment(draft.entries.len() as u64);
        meters.append_bytes.increment(draft.data_bytes);
        meters.appends_per_sync.record(draft.entries.len() as f64);
        meters.bytes_per_sync.record((draft.end() - draft.start()) as f64);
    }

    fn sync_if_dirty(&mut self) {
        let end = self.volume.content.read().end;
        // Not after a failure: a second sync would say that all is well.
        if self.synced < end && self.volume.state.load().read_only.is_none() {
            // The failure stands in the volume's state.
            let _ = self.sync(end);
        }
    }

    /// Fences, by the persisted state. That is what whoever asked waits for.
    fn seal(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.sync_if_dirty();
        let volume = self.volume.clone();
        let end = volume.content.read().end;
        volume
            .change_state(|state| {
                state.epoch = state.epoch.max(epoch);
                state.sealed = state.sealed.or(Some(end));
            })
            .inspect_err(|error| {
                if !is_full(error) {
                    // Seen by the masters: they wait for no seal of a server that can't persist one.
                    volume.fail(&format!("its seal could not be persisted: {error}"));
                }
            })
            .at(&volume.paths.state)
    }

    /// After a seal: makes the file smaller and the next start faster. May take long on a slow disk.
    fn tidy(&self) {
        let volume = &self.volume;
        volume.zero.stop();
        if volume.state.load().read_only.is_none() {
            upkeep::truncate(volume, volume.content.read().end);
            upkeep::checkpoint_now(volume);
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.volume.queue.close();
        loop {
            match self.volume.queue.take(Some(Duration::ZERO), None) {
                Work::Append(left) => self.append(left),
                Work::Control(Control::Seal { done, .. } | Control::Close { done }) => {
                    let _ = done.send(Err(StoreError::Closed(self.volume.id)));
                }
                Work::Idle | Work::Over => break,
            }
        }
        self.sync_if_dirty();
        self.volume.zero.stop();
        if self.volume.state.load().read_only.is_none() {
            upkeep::checkpoint_now(&self.volume);
        }
        Ok(())
    }
}

/// Takes back what a write that met a full disk left behind the last record.
fn undo(volume: &Volume, draft: &Draft) -> io::Result<()> {
    volume.zero.cut_to(draft.start(), || {
        volume.data.set_len(draft.start())?;
        volume.data.sync_data()
    })
}

fn refuse(submissions: Vec<Submission>, error: &AppendError) {
    for submission in submissions {
        let _ = submission.reply.send(vec![Err(error.clone()); submission.needles.len()]);
    }
}
