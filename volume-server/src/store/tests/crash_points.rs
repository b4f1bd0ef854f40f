//! Killed at every call of the disk while a replica is made, or made ready to be filled.
//!
//! Fault model: the process is gone before its nth change of the directory; what it did before stays, what it would have
//! done after never happens. Syncs are no change: a killed process loses nothing that it wrote.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use hay_common::disk::{DirLock, Disk, DiskFile, OpenMode, RealDisk, Space};

use super::*;

const EARLIER: Epoch = Epoch(4);
const FILL: Epoch = Epoch(7);

/// A disk of which a process has so many changes left.
struct Mortal(AtomicI64);

impl Mortal {
    fn after(changes: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(changes)))
    }

    fn immortal() -> Arc<Self> {
        Self::after(i64::MAX)
    }

    fn change(&self) -> io::Result<()> {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { self.dead() }
    }

    fn dead(&self) -> io::Result<()> {
        self.0.store(0, Ordering::SeqCst);
        Err(io::ErrorKind::Other.into())
    }

    /// Also one that only reads does nothing any more once it is dead.
    fn look(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) > 0 { Ok(()) } else { self.dead() }
    }
}

struct MortalFile {
    disk: Arc<Mortal>,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for MortalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.look()?;
        self.inner.read_at(buf, offset)
    }

    fn try_read_cached(&self, _: &mut [u8], _: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn write_all_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.disk.change()?;
        self.inner.write_all_at(parts, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.look()
    }

    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.disk.change()?;
        self.inner.zero_ahead(from, to)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.look()?;
        self.inner.len()
    }
}

/// What a store holds: files must know their disk, too.
struct Mount(Arc<Mortal>);

impl Disk for Mount {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::CreateNew => self.0.change()?,
            OpenMode::Read | OpenMode::ReadWrite => self.0.look()?,
        }
        Ok(Arc::new(MortalFile { disk: self.0.clone(), inner: RealDisk.open(path, mode)? }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.look()?;
        RealDisk.read_dir(path)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.look()?;
        RealDisk.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.change()?;
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.change()?;
        RealDisk.remove_file(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.0.look()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
}

fn on(dir: &Path, disk: &Arc<Mortal>) -> Store {
    // Without a thread that zeroes ahead the calls are the same each time.
    let config = StoreConfig { zero_ahead_bytes: 0, ..config(dir) };
    try_open(config, Arc::new(Mount(disk.clone()))).unwrap()
}

fn end(store: Store) {
    store.close();
}

fn members() -> Vec<NodeId> {
    (1..4).map(NodeId::from_random).collect()
}

fn create(store: &Store) -> Result<(), StoreError> {
    store.create_replica(SMALL, EPOCH, SizeClass::Small, &members())
}

fn begin_fill(store: &Store) -> Result<(), StoreError> {
    store.begin_fill(SMALL, FILL, SizeClass::Small, &members()).map(drop)
}

/// Does `work` after `before`, killed before each of its changes in turn; `judge` sees what the next start finds, and
/// whether the work was done.
fn killed_everywhere(
    before: impl Fn(&Store, &Mortal),
    work: impl Fn(&Store) -> Result<(), StoreError>,
    judge: impl Fn(&Store, bool, &str),
) {
    let mut points = 0;
    for changes in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let disk = Mortal::immortal();
        let store = on(dir.path(), &disk);
        before(&store, &disk);
        disk.0.store(changes, Ordering::SeqCst);
        let is_done = work(&store).is_ok();
        let is_alive = disk.0.swap(0, Ordering::SeqCst) > 0;
        end(store);
        let after = on(dir.path(), &Mortal::immortal());
        assert_eq!(after.broken().len(), 0, "killed before change {changes}");
        judge(&after, is_done, &format!("killed before change {changes}"));
        end(after);
        points += 1;
        if is_alive {
            break;
        }
    }
    assert!(points > 3, "{points} places at which it was killed");
}

/// A creation that fails before its nth change, in a process that lives on and is told again. Or does not fail, where it
/// has fewer.
fn after_a_failed_try(fails_before: i64) -> impl Fn(&Store, &Mortal) {
    move |store, disk| {
        disk.0.store(fails_before, Ordering::SeqCst);
        let _ = create(store);
    }
}

#[test]
fn a_replica_knows_of_the_others_wherever_its_making_is_cut_short() {
    for failed_before in 0..10 {
        killed_everywhere(after_a_failed_try(failed_before), create, |store, is_done, when| {
            let when = format!("{when}, after a try that failed before change {failed_before}");
            match store.state(SMALL) {
                None => assert!(!is_done, "{when}: gone"),
                Some(state) => {
                    assert_eq!((&state.members, state.epoch), (&members(), EPOCH), "{when}");
                    assert!(!state.filling && state.sealed.is_none(), "{when}");
                }
            }
            // A master says it again.
            create(store).unwrap();
            assert_eq!(store.state(SMALL).unwrap().members, members(), "{when}");
        });
    }
}

#[test]
fn a_volume_to_be_filled_vouches_for_nothing_wherever_its_making_is_cut_short() {
    for failed_before in 0..10 {
        killed_everywhere(after_a_failed_try(failed_before), begin_fill, |store, is_done, when| {
            let when = format!("{when}, after a creation that failed before change {failed_before}");
            if let Some(state) = store.state(SMALL) {
                assert_eq!(state.members, members(), "{when}");
                assert!(state.filling || state.epoch == EPOCH, "{when}: {state:?}");
            }
            assert!(!is_done || store.state(SMALL).is_some_and(|state| state.filling), "{when}");
            begin_fill(store).unwrap();
            let state = store.state(SMALL).unwrap();
            assert!(state.filling && state.epoch == FILL && state.members == members(), "{when}: {state:?}");
        });
    }
}

/// A replica of an earlier epoch with needles, sealed or not.
fn with_a_replica(sealed: bool) -> impl Fn(&Store, &Mortal) {
    move |store, _| {
        store.create_replica(SMALL, EPOCH, SizeClass::Small, &members()[..2]).unwrap();
        let many = (0..20).map(|key| needle(key, 100)).collect();
        let answers = block_on(store.append(SMALL, many));
        assert!(answers.iter().all(Result::is_ok));
        if sealed {
            store.seal(SMALL, EARLIER).unwrap();
            // Those calls come before, not among those that are counted.
            wait_until_cut(store, SMALL);
        }
    }
}

#[test]
fn a_replica_never_looks_filled_before_it_is() {
    for sealed in [false, true] {
        killed_everywhere(with_a_replica(sealed), begin_fill, |store, is_done, when| {
            let state = store.state(SMALL).unwrap();
            let is_filled = state.sealed.is_some() && state.epoch >= FILL && !state.filling;
            assert!(!is_filled, "{when}: {state:?}");
            assert_eq!(state.filling, state.epoch == FILL, "{when}: {state:?}");
            let own = if state.filling { members() } else { members()[..2].to_vec() };
            assert_eq!(state.members, own, "{when}");
            assert!(!is_done || state.filling, "{when}");
            for key in 0..20 {
                block_on(holds(store, SMALL, key, 100));
            }
            begin_fill(store).unwrap();
            assert!(store.state(SMALL).unwrap().filling, "{when}");
        });
    }
}

/// A sealed replica with a damaged needle, which can't be written to for that.
fn with_a_damaged_replica(store: &Store, disk: &Mortal) {
    with_a_replica(true)(store, disk);
    store.volume(SMALL).unwrap().fail("a sync failed");
}

/// All of it anew, but for one needle that nobody has.
fn rebuild(store: &Store) -> Result<(), StoreError> {
    let Ok(Begun::Anew) = store.begin_fill(SMALL, FILL, SizeClass::Small, &members()) else {
        return Err(StoreError::Closed(SMALL));
    };
    let lacking = (0..19).filter(|key| !store.has(SMALL, NeedleKey(*key), Cookie(1)));
    let many: Vec<_> = lacking
        .map(|key| NewNeedle::new(FILL, NeedleKey(key), Cookie(1), 2, vec![data(key, 100)], None).unwrap())
        .collect();
    if !block_on(store.fill(SMALL, many)).iter().all(Result::is_ok) {
        return Err(StoreError::Closed(SMALL));
    }
    store.finish_fill(SMALL, FILL, true)
}

#[test]
fn a_copy_that_is_written_anew_is_the_old_one_or_the_new_one_wherever_it_is_cut_short() {
    killed_everywhere(with_a_damaged_replica, rebuild, |store, is_done, when| {
        let state = store.state(SMALL).unwrap();
        let is_new = state.read_only.is_none();
        assert!(is_new || !is_done, "{when}");
        assert_eq!((is_new, is_new, state.filling), (state.epoch == FILL, state.incomplete, false), "{when}");
        for key in 0..19 {
            block_on(holds(store, SMALL, key, 100));
        }
        let dir = &store.shared.config.dir;
        for ending in ["vol", "state", "checkpoint"] {
            let path = dir.join(format!("00000007.anew.{ending}"));
            assert!(!path.exists(), "{when}: {}", path.display());
        }
        assert_eq!(files_like(dir, ".replaced-").len(), usize::from(is_new), "{when}");
        if is_new {
            assert_eq!(state.sealed, Some(end_of(store, SMALL)), "{when}");
        } else {
            block_on(holds(store, SMALL, 19, 100));
            rebuild(store).unwrap();
            assert_eq!(read_only(store, SMALL), None, "{when}");
        }
    });
}
