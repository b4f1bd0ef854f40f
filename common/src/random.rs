//! Randomness comes in from outside, for the same reason as time.

use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};

/// A source of random bits, good enough for tokens when it is the system's.
pub trait Random: Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// 128 random bits.
    fn u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_be_bytes(bytes)
    }

    /// 64 random bits.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// 32 random bits.
    fn u32(&self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_be_bytes(bytes)
    }
}

/// A source that many hold.
pub type SharedRandom = Arc<dyn Random>;

/// Seeds itself from the kernel; unpredictable.
pub struct SystemRandom(Mutex<StdRng>);

impl SystemRandom {
    /// A generator seeded by the kernel (`getrandom`).
    ///
    /// # Errors
    /// When the kernel gives no randomness: nothing that makes tokens may start then.
    pub fn shared() -> std::io::Result<SharedRandom> {
        let mut seed = <StdRng as SeedableRng>::Seed::default();
        SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
        Ok(Arc::new(Self(Mutex::new(StdRng::from_seed(seed)))))
    }
}

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}

/// The same numbers for the same seed, for tests and simulations. Never for tokens.
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// A repeatable source.
    pub fn shared(seed: u64) -> SharedRandom {
        Arc::new(Self(Mutex::new(StdRng::seed_from_u64(seed))))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}
