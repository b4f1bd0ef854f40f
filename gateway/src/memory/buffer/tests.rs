use super::*;
use crate::ingest::body::tests::rules;
use crate::ingest::body::{BodyFault, BodyReader};
use crate::ingest::chunk::{Chunker, Start};
use crate::memory::aside::AsideRoom;
use crate::memory::aside::tests::{Fault, FaultyDisk};
use crate::memory::gauge::BufferGauge;
use crate::memory::ledger::{AsideLimits, LedgerLimits};
use futures::StreamExt;
use hay_common::clock::ManualClock;
use hay_common::error::{ErrorCode, Failure};
use hay_common::random::SeededRandom;
use http_body::Frame;
use http_body_util::StreamBody;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

const CHUNK: usize = 300_000;
const OPEN: usize = 2 * CHUNK;

/// The chunks of a body, or why there are none.
type Received = Result<Vec<Vec<u8>>, BodyFault>;

/// Memory for one body, which any other that comes needs as a whole.
struct Tight {
    memory: UploadMemory,
    clock: Arc<ManualClock>,
    gauge: BufferGauge,
    disk: FaultyDisk,
    _dir: tempfile::TempDir,
}

fn tight() -> Tight {
    let (clock, gauge, disk) = (ManualClock::at(0), BufferGauge::default(), FaultyDisk::new());
    let dir = tempfile::tempdir().unwrap();
    let room = AsideRoom::open(Arc::new(disk.clone()), dir.path().to_owned(), 0).unwrap();
    let limits = LedgerLimits {
        small_bytes: SMALL_BODY_BYTES_MAX,
        small_each: SMALL_BODY_BYTES_MAX,
        open_bytes: OPEN,
        slots: 0,
        park_idle: Duration::from_millis(10),
        pressure_idle: Duration::from_secs(1),
        wait_max: Duration::from_secs(60),
        aside: AsideLimits {
            bytes: 64 * MIB,
            at_once: 4,
            worth: 8 * KIB,
            each: CHUNK,
            pause: Duration::from_secs(1),
        },
    };
    let memory = UploadMemory::new(limits, clock.clone(), gauge.clone(), Some(room));
    Tight { memory, clock, gauge, disk, _dir: dir }
}

impl Tight {
    /// Others come and need all memory there is, one kind after the other, while the clock goes on.
    async fn others_come(&self, step: Duration) {
        for bytes in [SMALL_BODY_BYTES_MAX, OPEN] {
            // What was sent is received first.
            tokio::time::sleep(MOMENT / 20).await;
            // There are no slots: one that waited on would stop the body that waits behind it.
            while tokio::time::timeout(MOMENT / 8, self.memory.share().grow(bytes)).await.is_err() {
                self.clock.advance(step);
                tokio::time::sleep(MOMENT / 20).await;
            }
        }
    }

    /// Receives a body in the background: its chunks, or why not.
    fn receive(&self, announced: Option<u64>) -> (UnboundedSender<Bytes>, tokio::task::JoinHandle<Received>) {
        let (sender, receiver) = unbounded_channel::<Bytes>();
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let bytes = receiver.recv().await?;
            Some((Ok::<_, &'static str>(Frame::data(bytes)), receiver))
        });
        let reader = BodyReader::new(StreamBody::new(frames.boxed()), announced, rules(), self.clock.clone());
        let mut chunker = Chunker::new(reader, self.memory.clone(), CHUNK);
        let received = tokio::spawn(async move {
            let mut chunks = Vec::new();
            if let Start::Small(chunk) = chunker.start().await? {
                chunks.push(chunk.data.to_vec());
                return Ok(chunks);
            }
            while let Some(chunk) = chunker.next().await? {
                chunks.push(chunk.data.to_vec());
            }
            Ok(chunks)
        });
        (sender, received)
    }
}

const MOMENT: Duration = Duration::from_millis(20);

#[tokio::test]
async fn chunks_are_the_same_wherever_they_are_set_aside() {
    let mut times = 0;
    for seed in 0..60 {
        let tight = tight();
        let random = SeededRandom::shared(seed);
        let edges = [1, 30_000, 65_535, 65_536, 65_537, 299_999, 300_000, 300_001, 600_000, 1_000_000];
        let mut bytes = vec![0; edges[seed as usize % edges.len()]];
        random.fill(&mut bytes);
        let announced = random.u32().is_multiple_of(2).then_some(bytes.len() as u64);
        let (sender, received) = tight.receive(announced);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let longest = [100, 5_000, 70_000][random.u32() as usize % 3];
            let (frame, after) = rest.split_at((1 + random.u32() as usize % longest).min(rest.len()));
            sender.send(Bytes::copy_from_slice(frame)).unwrap();
            rest = after;
            if rest.is_empty() || random.u32().is_multiple_of(8) {
                tight.others_come(MOMENT).await;
            }
        }
        drop(sender);
        let chunks = received.await.unwrap().unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        assert!(chunks.iter().rev().skip(1).all(|c| c.len() == CHUNK), "seed {seed}");
        assert!(chunks.concat() == bytes, "seed {seed}: other bytes");
        times += tight.memory.times_aside();
        assert_eq!((tight.memory.aside_bytes(), tight.gauge.held()), (0, 0), "seed {seed}");
    }
    assert!(times > 100, "set aside only {times} times");
}

/// What comes of a body that stalls after 200,000 bytes while others come and the disk does this, and then goes on.
async fn stalled_while(at_write: Fault, at_read: Fault) -> Received {
    let tight = tight();
    let (sender, received) = tight.receive(None);
    sender.send(Bytes::from(vec![1; 200_000])).unwrap();
    tight.disk.set(at_write);
    tight.others_come(Duration::from_millis(100)).await;
    tight.disk.set(at_read);
    // An evicted one has gone.
    _ = sender.send(Bytes::from(vec![2; 50_000]));
    drop(sender);
    let came = received.await.unwrap();
    assert_eq!((tight.memory.aside_bytes(), tight.gauge.held()), (0, 0), "{at_write:?} {at_read:?}");
    came
}

#[tokio::test]
async fn a_disk_that_takes_nothing_costs_the_stalled_one_its_buffer_and_nobody_else() {
    for fault in [Fault::Write, Fault::Open, Fault::Free(100_000)] {
        assert_eq!(stalled_while(fault, Fault::None).await, Err(BodyFault::TooSlow(4096)), "{fault:?}");
    }
}

#[tokio::test]
async fn a_disk_that_hangs_costs_a_stalled_one_its_buffer_and_nobody_waits_for_it() {
    let tight = tight();
    let mut stalled = Vec::new();
    for byte in [1, 2] {
        let (sender, received) = tight.receive(None);
        sender.send(Bytes::from(vec![byte; 200_000])).unwrap();
        tokio::time::sleep(MOMENT).await;
        tight.clock.advance(Duration::from_millis(20));
        stalled.push((sender, received));
    }
    tight.disk.set(Fault::Hang);
    let mut working = tight.memory.share();
    {
        let mut grown = std::pin::pin!(working.grow(CHUNK));
        let mut steps = 0;
        while tokio::time::timeout(MOMENT / 4, &mut grown).await.is_err() {
            steps += 1;
            assert!(steps < 50, "it waits for a file that is not written");
            tight.clock.advance(Duration::from_millis(100));
        }
    }
    let (_, second) = stalled.pop().unwrap();
    assert_eq!(second.await.unwrap(), Err(BodyFault::TooSlow(4096)));
    // The file is written after all, and nothing is lost.
    let (sender, first) = stalled.pop().unwrap();
    tight.disk.set(Fault::None);
    sender.send(Bytes::from(vec![3; 50_000])).unwrap();
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().concat(), [vec![1; 200_000], vec![3; 50_000]].concat());
    assert_eq!(tight.memory.times_aside(), 1);
}

#[tokio::test]
async fn what_comes_while_setting_aside_fails_ends_the_idleness() {
    let tight = tight();
    let (sender, received) = tight.receive(None);
    sender.send(Bytes::from(vec![1; 200_000])).unwrap();
    tokio::time::sleep(MOMENT).await;
    tight.clock.advance(Duration::from_millis(950));
    tight.disk.set(Fault::Hang);
    let mut working = tight.memory.share();
    {
        let mut grown = std::pin::pin!(working.grow(OPEN));
        assert!(tokio::time::timeout(MOMENT, &mut grown).await.is_err());
        assert!(tight.memory.aside_bytes() > 0, "it is on its way");
        sender.send(Bytes::from(vec![2; 1_000])).unwrap();
        tight.disk.set(Fault::Write);
        while tight.memory.aside_bytes() > 0 {
            assert!(tokio::time::timeout(MOMENT / 20, &mut grown).await.is_err());
        }
        // No file is tried for a second, and within it nobody may be evicted who was idle for less.
        tight.disk.set(Fault::None);
        tight.clock.advance(Duration::from_millis(900));
        assert!(tokio::time::timeout(MOMENT, &mut grown).await.is_err(), "one that delivers lost its buffer");
        tight.clock.advance(Duration::from_millis(100));
        grown.await.unwrap();
    }
    drop(working);
    drop(sender);
    assert_eq!(received.await.unwrap().unwrap().concat(), [vec![1; 200_000], vec![2; 1_000]].concat());
    assert_eq!(tight.memory.times_aside(), 1);
}

#[tokio::test]
async fn what_comes_back_damaged_is_never_stored() {
    let whole = stalled_while(Fault::None, Fault::None).await.unwrap();
    assert_eq!(whole.concat(), [vec![1; 200_000], vec![2; 50_000]].concat());
    for fault in [Fault::Flip, Fault::Short] {
        let lost = stalled_while(Fault::None, fault).await.unwrap_err();
        assert_eq!(lost, BodyFault::AsideLost, "{fault:?}");
        assert_eq!(Failure::from(lost).code, ErrorCode::Unavailable);
    }
}

#[tokio::test]
async fn a_body_that_is_given_up_leaves_nothing_behind() {
    let tight = tight();
    let (sender, received) = tight.receive(None);
    sender.send(Bytes::from(vec![1; 200_000])).unwrap();
    tight.others_come(MOMENT).await;
    assert_eq!(tight.memory.aside_bytes(), 200_000);
    assert_eq!(tight.gauge.held(), 0);
    received.abort();
    assert!(received.await.is_err());
    assert_eq!(tight.memory.aside_bytes(), 0);
    drop(sender);
}
