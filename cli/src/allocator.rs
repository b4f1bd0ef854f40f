//! The system's allocator, told not to keep what was given back.
//!
//! glibc makes up to eight arenas for each core and raises, at the first large block that is freed, the size from which
//! blocks go back to the kernel. A server that moves 8 MiB chunks on many threads then holds several times the
//! memory that it uses (docs/benchmarks.md). Both are fixed at the start.

/// `M_MMAP_THRESHOLD` and `M_ARENA_MAX` of glibc's malloc.h.
const M_MMAP_THRESHOLD: i32 = -3;
const M_ARENA_MAX: i32 = -8;
/// Blocks from this size on, chunks above all, go back to the kernel when they are freed.
const RETURNED_FROM_BYTES: i32 = 2 << 20;
/// Few threads allocate at the same moment: no more than there are cores.
const ARENAS: i32 = 2;

/// To be called first in `main`, before there is a second thread.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc's own settings have no other door")]
pub fn tune() {
    unsafe extern "C" {
        /// `int mallopt(int param, int value)` of malloc.h: 1 for success. Documented as unsafe beside other threads.
        fn mallopt(parameter: i32, value: i32) -> i32;
    }
    for (parameter, value) in [(M_MMAP_THRESHOLD, RETURNED_FROM_BYTES), (M_ARENA_MAX, ARENAS)] {
        // SAFETY: the signature is that of malloc.h, two integers by value; `main` calls this before it starts a thread.
        // A refused setting (0) leaves the default, which costs memory and nothing else.
        let _ = unsafe { mallopt(parameter, value) };
    }
}

/// Other libraries of C have no such settings.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn tune() {}
