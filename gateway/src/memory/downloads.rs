//! Memory that downloads read ahead into. Where most of it is held by stalled readers, a download goes on through
//! *transit*: one part at a time, copied out in small pieces as its client takes them, and given up where it does not.

use std::sync::Arc;

use bytes::Bytes;
use hay_common::limits::{KIB, RPC_BULK_PART_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::gauge::{BufferGauge, Held};

/// The unit in which the budget is counted.
const UNIT_BYTES: usize = 64 * KIB;
/// The share of transit.
const TRANSIT_PERCENT: usize = 25;

/// The prefetch memory of a gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DownloadMemory {
    ahead: Arc<Semaphore>,
    transit: Arc<Semaphore>,
    gauge: BufferGauge,
}

/// Bytes that may be held, until it is dropped.
pub(crate) struct Prefetch {
    _units: Option<OwnedSemaphorePermit>,
    _held: Held,
}

/// Room for one part.
pub(crate) enum Room {
    /// For as long as the client takes over it.
    Ahead(Prefetch),
    /// Only while the client takes it at once.
    Transit(Prefetch),
}

impl DownloadMemory {
    /// A budget of `bytes`.
    pub(crate) fn new(bytes: usize, gauge: BufferGauge) -> Self {
        let part = RPC_BULK_PART_BYTES / UNIT_BYTES;
        let all = (bytes / UNIT_BYTES).max(2 * part);
        let transit = (all * TRANSIT_PERCENT / 100).max(part);
        let places = |units| Arc::new(Semaphore::new(units));
        Self { ahead: places(all - transit), transit: places(transit), gauge }
    }

    /// Room for a part of `bytes`, whichever kind is free first. Nobody keeps transit for long, so nobody waits for
    /// long.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        let bytes = bytes.min(RPC_BULK_PART_BYTES);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(1);
        let ahead = Arc::clone(&self.ahead).acquire_many_owned(units);
        let transit = Arc::clone(&self.transit).acquire_many_owned(units);
        let room = |permit: Result<_, _>| Prefetch { _units: permit.ok(), _held: self.gauge.hold(bytes) };
        tokio::select! {
            biased;
            permit = ahead => Room::Ahead(room(permit)),
            permit = transit => Room::Transit(room(permit)),
        }
    }

    /// The piece that every download may hold whatever the others do: counted, not limited.
    pub(crate) fn minimum(&self, bytes: usize) -> Prefetch {
        Prefetch { _units: None, _held: self.gauge.hold(bytes) }
    }
}

/// Ties to the bytes what must live as long: dropped once the connection has written and dropped them.
pub(crate) fn tied<K: Send + 'static>(data: Bytes, kept: K) -> Bytes {
    struct Tied<K> {
        data: Bytes,
        _kept: K,
    }
    impl<K> AsRef<[u8]> for Tied<K> {
        fn as_ref(&self) -> &[u8] {
            &self.data
        }
    }
    Bytes::from_owner(Tied { data, _kept: kept })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const PART: usize = RPC_BULK_PART_BYTES;

    #[tokio::test]
    async fn room_comes_back_when_the_last_slice_is_gone() {
        let memory = DownloadMemory::new(2 * PART, BufferGauge::default());
        let room = memory.room(PART).await;
        assert!(matches!(room, Room::Ahead(_)));
        let bytes = tied(Bytes::from_static(b"hello"), room);
        let slice = bytes.slice(1..3);
        drop(bytes);
        let transit = memory.room(PART).await;
        assert!(matches!(transit, Room::Transit(_)));
        assert!(memory.room(PART).now_or_never().is_none());
        assert_eq!(&slice[..], b"el");
        drop(slice);
        assert!(matches!(memory.room(1).await, Room::Ahead(_)));
        drop(transit);
        assert_eq!((memory.gauge.held(), memory.gauge.peak()), (0, 2 * PART as u64));
    }

    #[tokio::test]
    async fn the_minimum_is_there_for_everybody() {
        let memory = DownloadMemory::new(2 * PART, BufferGauge::default());
        let _all = (memory.room(PART).await, memory.room(PART).await);
        let (one, two) = (memory.minimum(10), memory.minimum(10));
        assert_eq!(memory.gauge.held(), 2 * PART as u64 + 20);
        drop((one, two));
    }
}
