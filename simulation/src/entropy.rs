//! What a process takes from its kernel unasked: the seeds of the standard library's hash maps, from which tokio's
//! `select!` draws too, and the time that HTTP/2 looks at for streams that were reset. The standard library asks for both
//! by symbols that a program may put something in the place of, and this one does, for the simulation's thread alone.
#![expect(unsafe_code, reason = "symbols of the C library are replaced, and their buffers are raw")]

use std::cell::Cell;
use std::io::Read;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime as real_clock};

thread_local! {
    /// What the next numbers come from; `None` outside of the simulation.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    /// The time; `None` outside of the simulation.
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// From now on this thread's numbers follow from `seed`. To be called before it has made its first hash map.
pub fn seed(seed: u64) {
    STATE.set(Some(seed));
    tick(Duration::ZERO);
}

/// From now on it is so late for this thread.
pub fn tick(since_start: Duration) {
    // Days into the machine's life: some take an instant and go back from it.
    NOW.set(Some(Duration::from_secs(1_000_000) + since_start));
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// Fills `bytes` with what follows from `state`; what follows in its turn.
pub fn fill(mut state: u64, bytes: &mut [u8]) -> u64 {
    for piece in bytes.chunks_mut(8) {
        let (then, number) = next(state);
        state = then;
        piece.copy_from_slice(&number.to_le_bytes()[..piece.len()]);
    }
    state
}

/// In the place of `getrandom(2)`.
///
/// # Safety
/// As the C library's: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: that there is room for so many bytes is the caller's promise, and a pointer to room is not null.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    match STATE.get() {
        Some(state) => STATE.set(Some(fill(state, buffer))),
        None => {
            let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(buffer));
            if read.is_err() {
                return -1;
            }
        }
    }
    length as isize
}

/// In the place of `clock_gettime(2)`.
///
/// # Safety
/// As the C library's: `into` points to a time.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: i32, into: *mut Timespec) -> i32 {
    let time = match NOW.get() {
        Some(now) => Timespec { tv_sec: now.as_secs() as i64, tv_nsec: i64::from(now.subsec_nanos()) },
        None => match ClockId::try_from(clock) {
            Ok(known) => real_clock(known),
            Err(_) => return -1,
        },
    };
    // SAFETY: that it points to a time is the caller's promise.
    unsafe { into.write(time) };
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::SystemTime;

    use super::*;

    fn order_of_a_map(state: u64) -> Vec<u32> {
        let ordered = std::thread::spawn(move || {
            seed(state);
            (0..50).map(|n| (n, ())).collect::<HashMap<u32, ()>>().into_keys().collect()
        });
        ordered.join().unwrap()
    }

    #[test]
    fn hash_maps_follow_from_the_seed_on_the_simulations_thread_alone() {
        assert_eq!(order_of_a_map(1), order_of_a_map(1));
        assert_ne!(order_of_a_map(1), order_of_a_map(2));
        assert!(STATE.get().is_none(), "this thread is no simulation's");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what is tested is what the machine's clock says here")]
    fn time_stands_on_the_simulations_thread_alone() {
        let stands = std::thread::spawn(|| {
            seed(1);
            let before = std::time::Instant::now();
            std::thread::sleep(Duration::from_millis(2));
            let stood = before.elapsed();
            tick(Duration::from_secs(5));
            (stood, before.elapsed())
        });
        assert_eq!(stands.join().unwrap(), (Duration::ZERO, Duration::from_secs(5)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(now > Duration::from_secs(1_700_000_000), "the machine's own time: {now:?}");
    }
}
