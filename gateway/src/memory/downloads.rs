//! Memory that downloads read ahead into. They take turns at it; nobody waits for ever: where the budget is held by
//! stalled readers, a download goes on with one small piece at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hay_common::limits::KIB;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::gauge::{BufferGauge, Held};

/// The unit in which the budget is counted.
const UNIT_BYTES: usize = 64 * KIB;

/// The prefetch memory of a gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DownloadMemory {
    all: usize,
    units: Arc<Semaphore>,
    gauge: BufferGauge,
}

/// Bytes that may be read ahead, until it is dropped.
pub(crate) struct Prefetch {
    _units: Option<OwnedSemaphorePermit>,
    _held: Held,
}

impl DownloadMemory {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: usize, gauge: BufferGauge) -> Self {
        let all = bytes / UNIT_BYTES;
        Self { all, units: Arc::new(Semaphore::new(all)), gauge }
    }

    /// Room for `bytes`, in the order of asking; nothing where it takes longer than `patience`.
    pub(crate) async fn take_turn(&self, bytes: usize, patience: Duration) -> Option<Prefetch> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES).min(self.all)).ok()?;
        let turn = Arc::clone(&self.units).acquire_many_owned(units);
        let permit = tokio::time::timeout(patience, turn).await.ok()?.ok()?;
        Some(Prefetch { _units: Some(permit), _held: self.gauge.hold(bytes) })
    }

    /// The piece that every download may hold whatever the others do: counted, not limited.
    pub(crate) fn minimum(&self, bytes: usize) -> Prefetch {
        Prefetch { _units: None, _held: self.gauge.hold(bytes) }
    }
}

/// Ties the room to the bytes: given back once the connection has written and dropped them.
pub(crate) fn tied(data: Bytes, room: Arc<Prefetch>) -> Bytes {
    struct Tied(Bytes, #[expect(dead_code, reason = "held until the bytes are dropped")] Arc<Prefetch>);
    impl AsRef<[u8]> for Tied {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Bytes::from_owner(Tied(data, room))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn room_comes_back_when_the_last_slice_is_gone() {
        let memory = DownloadMemory::new(2 * UNIT_BYTES, BufferGauge::default());
        let room = memory.take_turn(UNIT_BYTES + 1, SOON).await.unwrap();
        assert!(memory.take_turn(1, SOON).await.is_none());
        let bytes = tied(Bytes::from_static(b"hello"), Arc::new(room));
        let slice = bytes.slice(1..3);
        drop(bytes);
        assert!(memory.take_turn(1, SOON).await.is_none());
        assert_eq!(&slice[..], b"el");
        drop(slice);
        assert!(memory.take_turn(1, SOON).await.is_some());
        assert_eq!(memory.gauge.held(), 0);
        assert_eq!(memory.gauge.peak(), UNIT_BYTES as u64 + 1);
    }

    #[tokio::test]
    async fn the_minimum_is_there_for_everybody() {
        let memory = DownloadMemory::new(UNIT_BYTES, BufferGauge::default());
        let _all = memory.take_turn(100 * UNIT_BYTES, SOON).await.unwrap();
        assert!(memory.take_turn(1, SOON).await.is_none());
        let (one, two) = (memory.minimum(10), memory.minimum(10));
        assert_eq!(memory.gauge.held(), 100 * UNIT_BYTES as u64 + 20);
        drop((one, two));
    }
}
