//! A disk that fails as it is told. Fault model: a call of one kind, on files whose name ends so, fails from its nth time on
//! or once; a failing write may have written some of its bytes; a failing sync leaves everything as it is. Calls of one kind
//! may also be held until they are let go.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hay_common::disk::{DirLock, Disk, DiskFile, OpenMode, RealDisk, Space};
use parking_lot::{Condvar, Mutex};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
    Sync,
    ZeroAhead,
    SetLen,
    Publish,
}

#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub call: Call,
    pub ends_with: &'static str,
    pub kind: io::ErrorKind,
    /// Bytes of a failing write that reach the file.
    pub partial: usize,
    pub once: bool,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    calls: Vec<(Call, PathBuf)>,
    /// The largest single read, and the bytes of all.
    reads: (usize, usize),
    free: Option<u64>,
    held: Option<(Call, &'static str)>,
}

#[derive(Clone, Default)]
pub(crate) struct FaultyDisk(Arc<Mutex<Plan>>, Arc<Condvar>);

impl FaultyDisk {
    /// Such calls wait from now on.
    pub fn hold(&self, call: Call, ends_with: &'static str) {
        self.0.lock().held = Some((call, ends_with));
    }

    /// They go on.
    pub fn let_go(&self) {
        self.0.lock().held = None;
        self.1.notify_all();
    }

    pub fn set(&self, fault: Fault) {
        self.0.lock().faults.push(fault);
    }

    pub fn heal(&self) {
        self.0.lock().faults.clear();
    }

    pub fn set_free(&self, free: u64) {
        self.0.lock().free = Some(free);
    }

    /// All calls on such files, in order, reads apart.
    pub fn changes(&self, ends_with: &str) -> Vec<Call> {
        let plan = self.0.lock();
        let of_file = plan.calls.iter().filter(|(_, p)| p.to_str().unwrap().ends_with(ends_with));
        of_file.map(|(call, _)| *call).filter(|call| *call != Call::Read).collect()
    }

    pub fn count(&self, call: Call, ends_with: &str) -> usize {
        self.0
            .lock()
            .calls
            .iter()
            .filter(|(c, p)| *c == call && p.to_str().unwrap().ends_with(ends_with))
            .count()
    }

    /// The largest read since the last call, and the bytes of all.
    pub fn reads(&self) -> (usize, usize) {
        std::mem::take(&mut self.0.lock().reads)
    }

    fn meets(&self, call: Call, path: &Path) -> Option<Fault> {
        let mut plan = self.0.lock();
        plan.calls.push((call, path.to_owned()));
        let is_held = |plan: &mut Plan| {
            plan.held.is_some_and(|(held, ends)| held == call && path.to_str().unwrap().ends_with(ends))
        };
        self.1.wait_while(&mut plan, is_held);
        let at = plan
            .faults
            .iter()
            .position(|f| f.call == call && path.to_str().unwrap().ends_with(f.ends_with))?;
        let fault = plan.faults[at].clone();
        if fault.once {
            plan.faults.remove(at);
        }
        Some(fault)
    }

    fn check(&self, call: Call, path: &Path) -> io::Result<()> {
        self.meets(call, path).map_or(Ok(()), |fault| Err(fault.kind.into()))
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    inner: Arc<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.check(Call::Read, &self.path)?;
        let mut plan = self.disk.0.lock();
        let (largest, all) = plan.reads;
        plan.reads = (largest.max(buf.len()), all + buf.len());
        drop(plan);
        self.inner.read_at(buf, offset)
    }

    fn try_read_cached(&self, _: &mut [u8], _: u64) -> io::Result<Option<usize>> {
        // The other path than the real disk takes in these tests.
        Ok(None)
    }

    fn write_all_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()> {
        if let Some(fault) = self.disk.meets(Call::Write, &self.path) {
            let all: Vec<u8> = parts.iter().flat_map(|p| p.iter().copied()).collect();
            let some = &all[..fault.partial.min(all.len())];
            self.inner.write_all_at(&[io::IoSlice::new(some)], offset)?;
            return Err(fault.kind.into());
        }
        self.inner.write_all_at(parts, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.check(Call::Sync, &self.path)?;
        self.inner.sync_data()
    }

    fn zero_ahead(&self, from: u64, to: u64) -> io::Result<()> {
        self.disk.check(Call::ZeroAhead, &self.path)?;
        self.inner.zero_ahead(from, to)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(Call::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = RealDisk.open(path, mode)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), path: path.to_owned(), inner }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.read_dir(path)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Publish, to)?;
        RealDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let real = RealDisk.space(path)?;
        Ok(Space { free: self.0.lock().free.unwrap_or(real.free), ..real })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        RealDisk.lock(path)
    }
}
