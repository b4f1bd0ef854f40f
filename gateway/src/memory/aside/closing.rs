//! Files closed where it may take its time.
//!
//! Closing a file without a name frees its blocks, up to a chunk of them, and bodies break off by the hundred when a
//! network does. So their tasks only hand the files over, and one thread for all closes them one after the other: one
//! for each would be hundreds of threads at once.

use std::sync::Arc;

use hay_common::disk::DiskFile;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Those that are to be closed: no more than are open.
#[derive(Default)]
pub(super) struct Closing {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Vec<Arc<dyn DiskFile>>,
    /// Whether the thread is there.
    is_closing: bool,
}

impl Closing {
    /// Closes `file` soon, and outside a runtime at once.
    pub(super) fn close(self: &Arc<Self>, file: Arc<dyn DiskFile>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.state.lock();
        state.files.push(file);
        if !state.is_closing {
            state.is_closing = true;
            let closing = Arc::clone(self);
            runtime.spawn_blocking(move || closing.run());
        }
    }

    fn run(&self) {
        while let Some(file) = self.next() {
            drop(file);
        }
    }

    fn next(&self) -> Option<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let next = state.files.pop();
        state.is_closing = next.is_some();
        next
    }
}
