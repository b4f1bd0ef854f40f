use super::*;
use hay_common::random::SeededRandom;

const K: usize = 1024;
const LIMITS: LedgerLimits = LedgerLimits {
    small_bytes: 8 * K,
    small_each: K,
    open_bytes: 64 * K,
    slots: 4,
    park_idle: Duration::from_millis(10),
    pressure_idle: Duration::from_secs(3),
    wait_max: Duration::from_secs(60),
};
const CHUNK: usize = 16 * K;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn without_pressure_everything_is_granted_at_once() {
    let mut ledger = Ledger::new(LIMITS);
    for _ in 0..4 {
        let id = ledger.open();
        for size in [K, 2 * K, 8 * K, CHUNK] {
            assert!(ledger.grow(id, size));
        }
    }
    // Open memory is full: the next ones take slots.
    let fifth = ledger.open();
    assert!(ledger.grow(fifth, CHUNK));
    assert_eq!((ledger.open_used, ledger.slots_used), (4 * CHUNK, 1));
    ledger.release(fifth);
    assert_eq!(ledger.slots_used, 0);
}

#[test]
fn a_slot_lets_its_holder_finish_whatever_others_do() {
    let mut ledger = Ledger::new(LIMITS);
    let fill = ledger.open();
    assert!(ledger.grow(fill, 64 * K));
    let slots: Vec<_> = (0..4).map(|_| ledger.open()).collect();
    for id in &slots {
        assert!(ledger.grow(*id, 2 * K));
    }
    let late = ledger.open();
    assert!(!ledger.grow(late, 2 * K));
    for id in &slots {
        assert!(ledger.grow(*id, CHUNK));
    }
    assert_eq!(ledger.settle(at(0)), Changes::default());
    ledger.release(slots[0]);
    assert_eq!(ledger.settle(at(0)).granted, [late]);
}

#[test]
fn waiters_are_served_in_their_order_and_nobody_overtakes() {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, ..LIMITS });
    let fill = ledger.open();
    assert!(ledger.grow(fill, 60 * K));
    let (first, second) = (ledger.open(), ledger.open());
    assert!(!ledger.grow(first, CHUNK));
    // It would fit, but somebody was there before.
    assert!(!ledger.grow(second, 2 * K));
    ledger.release(fill);
    assert_eq!(ledger.settle(at(0)).granted, [first, second]);
}

#[test]
fn an_idle_slot_is_parked_and_loses_nothing() {
    let mut ledger = Ledger::new(LIMITS);
    let fill = ledger.open();
    assert!(ledger.grow(fill, 60 * K));
    let stalled: Vec<_> = (0..4).map(|_| ledger.open()).collect();
    for id in &stalled {
        assert!(ledger.grow(*id, 5 * K));
    }
    ledger.release(fill);
    let again = ledger.open();
    assert!(ledger.grow(again, 64 * K));
    let working = ledger.open();
    assert!(!ledger.grow(working, 2 * K));
    ledger.release(again);
    let half = ledger.open();
    ledger.holders.get_mut(&half).unwrap().wanted = Some(62 * K);
    assert!(ledger.try_grant(half));
    stalled.iter().for_each(|id| ledger.idle(*id, at(0)));
    // 2 KiB of open memory fit the one that waits.
    assert_eq!(ledger.settle(at(5)).granted, [working]);
    let more = ledger.open();
    assert!(!ledger.grow(more, 2 * K));
    ledger.release(half);
    ledger.settle(at(11));
    assert!(ledger.bytes() >= 4 * 5 * K, "nobody lost bytes");
}

#[test]
fn the_longest_idle_goes_first_and_only_under_pressure() {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, ..LIMITS });
    let old = ledger.open();
    let young = ledger.open();
    assert!(ledger.grow(old, 32 * K));
    assert!(ledger.grow(young, 32 * K));
    ledger.idle(old, at(0));
    ledger.idle(young, at(1));
    assert_eq!(ledger.settle(at(60_000)), Changes::default(), "nobody waits");
    let waiter = ledger.open();
    assert!(!ledger.grow(waiter, CHUNK));
    assert_eq!(ledger.settle(at(2_999)), Changes::default(), "not idle for long enough");
    assert_eq!(ledger.settle(at(60_000)), Changes { granted: vec![waiter], evicted: vec![old] });
}

#[test]
fn sealed_and_working_buffers_are_never_evicted() {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, ..LIMITS });
    let (sealed, working) = (ledger.open(), ledger.open());
    assert!(ledger.grow(sealed, 32 * K));
    assert!(ledger.grow(working, 32 * K));
    ledger.idle(sealed, at(0));
    ledger.seal(sealed);
    ledger.idle(working, at(0));
    ledger.active(working, false, at(1));
    let waiter = ledger.open();
    assert!(!ledger.grow(waiter, CHUNK));
    assert_eq!(ledger.settle(at(60_000)), Changes::default());
}

#[test]
fn one_who_gives_up_waiting_leaves_the_queue() {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, ..LIMITS });
    let fill = ledger.open();
    assert!(ledger.grow(fill, 64 * K));
    let (gone, next) = (ledger.open(), ledger.open());
    assert!(!ledger.grow(gone, CHUNK));
    assert!(!ledger.grow(next, CHUNK));
    ledger.release(gone);
    ledger.release(fill);
    assert_eq!(ledger.settle(at(0)).granted, [next]);
    assert!(!ledger.has_waiters());
}

#[test]
fn small_bodies_do_not_wait_for_large_ones() {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, ..LIMITS });
    let fill = ledger.open();
    assert!(ledger.grow(fill, 64 * K));
    let waiter = ledger.open();
    assert!(!ledger.grow(waiter, CHUNK));
    let small = ledger.open();
    assert!(ledger.grow(small, K));
    let many: Vec<_> = (0..7).map(|_| ledger.open()).collect();
    many.iter().for_each(|id| assert!(ledger.grow(*id, K)));
    let ninth = ledger.open();
    assert!(!ledger.grow(ninth, K));
    ledger.release(small);
    assert_eq!(ledger.settle(at(0)).granted, [ninth]);
}

/// Whatever happens, the limits hold, the counts agree with the holders, and the working ones all finish.
#[test]
fn any_mixture_of_stalled_and_working_bodies_finishes() {
    for seed in 0..200 {
        let random = SeededRandom::shared(seed);
        let mut ledger = Ledger::new(LIMITS);
        let mut now = at(0);
        let mut evicted = std::collections::HashSet::new();
        let mut working: HashMap<HolderId, usize> = HashMap::new();
        for _ in 0..60 {
            let id = ledger.open();
            if random.u32().is_multiple_of(3) {
                working.insert(id, 0);
            } else {
                // Stalls somewhere in its chunk.
                ledger.grow(id, (random.u32() as usize % CHUNK).max(1));
                ledger.idle(id, now);
            }
        }
        let mut rounds = 0;
        while !working.is_empty() {
            rounds += 1;
            assert!(rounds < 10_000, "seed {seed}: {} of the working ones hang", working.len());
            now += at(100);
            let changes = ledger.settle(now);
            evicted.extend(changes.evicted.iter().copied());
            // A stalled one that waited and was granted has no more bytes to bring.
            changes
                .granted
                .iter()
                .filter(|id| !working.contains_key(id))
                .for_each(|id| ledger.idle(*id, now));
            let ids: Vec<HolderId> = working.keys().copied().collect();
            for id in ids {
                assert!(!evicted.contains(&id), "seed {seed}: a working body was evicted");
                if ledger.holders.get(&id).is_some_and(|h| h.wanted.is_some()) {
                    continue;
                }
                let have = working[&id];
                if have >= CHUNK {
                    ledger.release(id);
                    working.remove(&id);
                } else {
                    let next = (have + 1 + random.u32() as usize % (4 * K)).min(CHUNK);
                    working.insert(id, next);
                    ledger.grow(id, next);
                }
            }
            let sum =
                |place| ledger.holders.values().filter(|h| h.place == place).map(|h| h.bytes).sum::<usize>();
            assert_eq!(sum(Place::Small), ledger.small_used, "seed {seed}");
            assert_eq!(sum(Place::Open), ledger.open_used, "seed {seed}");
            assert!(
                ledger.small_used <= LIMITS.small_bytes && ledger.open_used <= LIMITS.open_bytes,
                "seed {seed}"
            );
            assert!(ledger.slots_used <= LIMITS.slots, "seed {seed}");
        }
    }
}
