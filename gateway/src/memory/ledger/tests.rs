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
    aside: AsideLimits { bytes: 0, at_once: 0, worth: 0, each: 0, pause: Duration::ZERO },
};
/// With files.
const ASIDE: AsideLimits =
    AsideLimits { bytes: 256 * K, at_once: 2, worth: 2 * K, each: CHUNK, pause: Duration::from_secs(1) };
const WITH_FILES: LedgerLimits = LedgerLimits { aside: ASIDE, ..LIMITS };
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
    assert_eq!(
        ledger.settle(at(60_000)),
        Changes { granted: vec![waiter], evicted: vec![old], to_set_aside: vec![] }
    );
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

/// Open memory full of stalled buffers of 16 KiB, without slots, and one that waits.
fn crowded(stalled: usize, limits: LedgerLimits) -> (Ledger, Vec<HolderId>, HolderId) {
    let mut ledger = Ledger::new(LedgerLimits { slots: 0, open_bytes: stalled * CHUNK, ..limits });
    let ids: Vec<_> = (0..stalled).map(|_| ledger.open()).collect();
    for (n, id) in ids.iter().enumerate() {
        assert!(ledger.grow(*id, CHUNK));
        ledger.idle(*id, at(n as u64));
    }
    let waiter = ledger.open();
    assert!(!ledger.grow(waiter, CHUNK));
    (ledger, ids, waiter)
}

#[test]
fn what_stalls_is_set_aside_and_loses_nothing() {
    let (mut ledger, ids, waiter) = crowded(4, WITH_FILES);
    assert_eq!(ledger.settle(at(9)), Changes::default(), "not idle for long enough");
    let chosen = ledger.settle(at(60_000));
    assert_eq!(
        chosen,
        Changes { to_set_aside: vec![ids[0]], ..Changes::default() },
        "one waits: one is enough"
    );
    assert_eq!(ledger.settle(at(60_000)), Changes::default(), "it is on its way");
    assert_eq!(ledger.aside_bytes(), CHUNK, "its room is kept for it");
    ledger.set_aside(ids[0], CHUNK - 5);
    assert_eq!(ledger.aside_bytes(), CHUNK - 5);
    assert_eq!(ledger.settle(at(60_000)).granted, [waiter]);
    // It comes back: it has to wait for its memory, and gives its file away.
    assert!(!ledger.grow(ids[0], CHUNK));
    ledger.release(waiter);
    assert_eq!(ledger.settle(at(60_000)).granted, [ids[0]]);
    ledger.taken_back(ids[0]);
    ledger.seal(ids[0]);
    assert_eq!(ledger.aside_bytes(), 0);
}

#[test]
fn one_whose_client_sends_again_stays_and_another_is_chosen() {
    let (mut ledger, ids, _) = crowded(4, WITH_FILES);
    assert_eq!(ledger.settle(at(60_000)).to_set_aside, [ids[0]]);
    ledger.active(ids[0], false, at(60_000));
    assert_eq!(ledger.aside_bytes(), 0);
    assert_eq!(ledger.settle(at(60_000)).to_set_aside, [ids[1]]);
    assert!(ledger.grow(ids[1], CHUNK));
    assert_eq!(ledger.settle(at(60_000)).to_set_aside, [ids[2]]);
    ledger.release(ids[2]);
    assert_eq!((ledger.aside_bytes(), ledger.leaving.len()), (0, 0));
}

#[test]
fn a_few_are_on_their_way_at_a_time_and_are_followed_by_the_next() {
    let (mut ledger, ids, _) = crowded(8, WITH_FILES);
    for _ in 0..5 {
        let other = ledger.open();
        assert!(!ledger.grow(other, CHUNK));
    }
    assert_eq!(ledger.settle(at(1_000)).to_set_aside, ids[..2]);
    ledger.set_aside(ids[1], CHUNK);
    let next = ledger.settle(at(1_000));
    assert_eq!((next.granted.len(), next.to_set_aside), (1, vec![ids[2]]));
}

#[test]
fn one_that_trickles_is_set_aside_first() {
    let (mut ledger, ids, _) = crowded(4, WITH_FILES);
    ledger.active(ids[3], true, at(900));
    ledger.idle(ids[3], at(999));
    assert_eq!(ledger.settle(at(1_000)).to_set_aside, [ids[3]]);
}

#[test]
fn little_is_not_worth_a_file_while_there_is_more() {
    let mut ledger = Ledger::new(WITH_FILES);
    let tiny = ledger.open();
    assert!(ledger.grow(tiny, 10));
    ledger.idle(tiny, at(0));
    let large: Vec<_> = (0..4).map(|_| ledger.open()).collect();
    large.iter().for_each(|id| assert!(ledger.grow(*id, CHUNK)));
    let slots: Vec<_> = (0..4).map(|_| ledger.open()).collect();
    slots.iter().for_each(|id| assert!(ledger.grow(*id, K + 1)));
    slots.iter().for_each(|id| ledger.idle(*id, at(1)));
    let waiter = ledger.open();
    assert!(!ledger.grow(waiter, CHUNK));
    assert_eq!(ledger.settle(at(100)).to_set_aside, [slots[0]], "a slot is worth it whatever is in it");
    assert_eq!(ledger.settle(at(100)).to_set_aside, [], "small memory helps nobody who needs more");
}

#[test]
fn without_files_the_longest_idle_is_evicted() {
    // The disk fails: for a while it is as if there were no files, then it is tried again.
    let (mut ledger, ids, waiter) = crowded(4, WITH_FILES);
    assert_eq!(ledger.settle(at(5_000)).to_set_aside, [ids[0]]);
    ledger.not_set_aside(ids[0], at(5_000));
    assert_eq!(ledger.aside_bytes(), 0);
    let changes = ledger.settle(at(5_999));
    assert_eq!(changes, Changes { granted: vec![waiter], evicted: vec![ids[0]], to_set_aside: vec![] });
    let other = ledger.open();
    assert!(!ledger.grow(other, CHUNK));
    assert_eq!(ledger.settle(at(6_000)).to_set_aside, [ids[1]]);
    // No room is left in files.
    let tight = AsideLimits { bytes: 2 * CHUNK - 1, ..ASIDE };
    let (mut ledger, ids, waiter) = crowded(4, LedgerLimits { aside: tight, ..LIMITS });
    assert_eq!(ledger.settle(at(5_000)).to_set_aside, [ids[0]]);
    ledger.set_aside(ids[0], CHUNK);
    assert_eq!(ledger.settle(at(5_000)).granted, [waiter]);
    let more = ledger.open();
    assert!(!ledger.grow(more, CHUNK));
    assert_eq!(ledger.settle(at(5_000)).evicted, [ids[1]]);
}

#[test]
fn while_a_file_is_not_written_the_longest_idle_is_evicted() {
    let (mut ledger, ids, first) = crowded(8, WITH_FILES);
    let second = ledger.open();
    assert!(!ledger.grow(second, CHUNK));
    assert_eq!(ledger.settle(at(5_000)).to_set_aside, ids[..2]);
    assert_eq!(ledger.settle(at(7_999)), Changes::default(), "their files may still be written soon");
    let changes = ledger.settle(at(8_000));
    assert_eq!(changes.granted, [first, second]);
    assert_eq!(changes.evicted, ids[2..4]);
    assert_eq!(changes.to_set_aside, [], "a disk that hangs gets no more");
    // One of them is written after all: the other still says that the disk is no help.
    ledger.set_aside(ids[0], CHUNK);
    let (third, fourth) = (ledger.open(), ledger.open());
    assert!(ledger.grow(third, CHUNK));
    assert!(!ledger.grow(fourth, CHUNK));
    let changes = ledger.settle(at(8_000));
    assert_eq!(changes, Changes { granted: vec![fourth], evicted: vec![ids[4]], to_set_aside: vec![] });
    // Its client sends again, so it has not left: files are as good as ever.
    ledger.active(ids[1], false, at(8_000));
    let fifth = ledger.open();
    assert!(!ledger.grow(fifth, CHUNK));
    assert_eq!(ledger.settle(at(8_000)).to_set_aside, [ids[5]]);
}

#[test]
fn small_buffers_that_wait_for_more_small_memory_take_other_memory_instead() {
    let mut ledger = Ledger::new(WITH_FILES);
    let ids: Vec<_> = (0..16).map(|_| ledger.open()).collect();
    ids.iter().for_each(|id| assert!(ledger.grow(*id, K / 2)));
    ids.iter().for_each(|id| assert!(ledger.grow(*id, K), "each waits for what the others hold"));
}

/// What a model of many bodies does at random: whatever it is, the sums are right and within the limits, and in the end
/// everybody was served and nothing is left.
#[test]
fn any_sequence_keeps_the_sums_and_serves_everybody() {
    for seed in 0..300 {
        let random = SeededRandom::shared(seed);
        let pick = |n: usize| random.u32() as usize % n.max(1);
        let aside = AsideLimits { bytes: [0, 3 * CHUNK, 256 * K][seed as usize % 3], ..ASIDE };
        let limits = LedgerLimits { aside, slots: 1 + pick(4), ..LIMITS };
        let mut model = Model { ledger: Ledger::new(limits), limits, bodies: Vec::new(), seed };
        let mut now = 0;
        for _ in 0..600 {
            now += pick(30) as u64;
            model.act(pick(9), pick(model.bodies.len()), pick(CHUNK) + 1, at(now));
            model.settle(at(now));
        }
        // Everybody ends as soon as it can; what was chosen is set aside.
        let mut rounds = 0;
        while !model.bodies.is_empty() {
            rounds += 1;
            assert!(rounds < 1_000, "seed {seed}: {} bodies hang", model.bodies.len());
            now += 10;
            let ready = model.bodies.iter().position(|b| b.state != State::Waits);
            assert!(ready.is_some(), "seed {seed}: everybody waits");
            model.act(8, ready.unwrap(), 1, at(now));
            model.settle(at(now));
        }
        let ledger = &model.ledger;
        let left =
            (ledger.small_used, ledger.open_used, ledger.slots_used, ledger.aside_used, ledger.leaving.len());
        assert_eq!(left, (0, 0, 0, 0, 0), "seed {seed}");
        assert!(ledger.idle.is_empty() && !ledger.has_waiters(), "seed {seed}");
    }
}

#[derive(PartialEq, Clone, Copy)]
enum State {
    Goes,
    Waits,
    Leaves,
    Sealed,
}

struct Body {
    id: HolderId,
    bytes: usize,
    state: State,
}

struct Model {
    ledger: Ledger,
    limits: LedgerLimits,
    bodies: Vec<Body>,
    seed: u64,
}

impl Model {
    fn act(&mut self, what: usize, which: usize, bytes: usize, now: Duration) {
        if what == 0 || self.bodies.is_empty() {
            let id = self.ledger.open();
            self.bodies.push(Body { id, bytes: 0, state: State::Goes });
            return;
        }
        let body = &mut self.bodies[which];
        match (what, body.state) {
            (1..=3, State::Goes | State::Leaves) => {
                body.bytes = (body.bytes + bytes).min(CHUNK);
                let granted = self.ledger.grow(body.id, body.bytes);
                body.state = if granted { State::Goes } else { State::Waits };
            }
            (4..=5, State::Goes | State::Leaves) => self.ledger.idle(body.id, now),
            (6, State::Goes | State::Leaves) => {
                self.ledger.active(body.id, bytes.is_multiple_of(3), now);
                body.state = State::Goes;
            }
            (7, State::Goes) => {
                self.ledger.taken_back(body.id);
                self.ledger.seal(body.id);
                body.state = State::Sealed;
            }
            (7, State::Leaves) if bytes.is_multiple_of(4) => {
                self.ledger.not_set_aside(body.id, now);
                body.state = State::Goes;
            }
            (7, State::Leaves) => {
                self.ledger.set_aside(body.id, body.bytes);
                (body.bytes, body.state) = (0, State::Goes);
            }
            (8, state) if state != State::Waits || bytes.is_multiple_of(4) => {
                self.ledger.release(body.id);
                self.bodies.swap_remove(which);
            }
            _ => {}
        }
    }

    fn settle(&mut self, now: Duration) {
        let changes = self.ledger.settle(now);
        for body in &mut self.bodies {
            if changes.granted.contains(&body.id) {
                assert!(body.state == State::Waits, "seed {}: granted unasked", self.seed);
                body.state = State::Goes;
            }
            if changes.to_set_aside.contains(&body.id) {
                assert!(
                    body.state == State::Goes,
                    "seed {}: one that waits or is done was chosen",
                    self.seed
                );
                body.state = State::Leaves;
            }
        }
        self.bodies.retain(|b| !changes.evicted.contains(&b.id));
        self.check();
    }

    fn check(&self) {
        let (ledger, limits, seed) = (&self.ledger, &self.limits, self.seed);
        let all = || ledger.holders.values();
        let sum = |place| all().filter(|h| h.place == place).map(|h| h.bytes).sum::<usize>();
        assert_eq!(
            (sum(Place::Small), sum(Place::Open)),
            (ledger.small_used, ledger.open_used),
            "seed {seed}"
        );
        assert_eq!(all().filter(|h| h.place == Place::Slot).count(), ledger.slots_used, "seed {seed}");
        assert_eq!(all().map(Holder::aside_charge).sum::<usize>(), ledger.aside_used, "seed {seed}");
        assert_eq!(all().filter(|h| h.leaving_since.is_some()).count(), ledger.leaving.len(), "seed {seed}");
        assert!(
            ledger.small_used <= limits.small_bytes && ledger.open_used <= limits.open_bytes,
            "seed {seed}"
        );
        assert!(
            ledger.slots_used <= limits.slots && ledger.leaving.len() <= limits.aside.at_once,
            "seed {seed}"
        );
        assert!(ledger.aside_used <= limits.aside.bytes, "seed {seed}");
        let waiting = self.bodies.iter().filter(|b| b.state == State::Waits).count();
        assert_eq!(
            ledger.small_queue.len() + ledger.large_queue.len(),
            waiting,
            "seed {seed}: a lost wake-up"
        );
    }
}
