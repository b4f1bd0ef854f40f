//! How many calls may be doubled because a server is silent: a share of all, so that a cluster that is slow as a whole is not
//! loaded twice.

use std::sync::atomic::{AtomicU32, Ordering};

use hay_common::limits::{HEDGE_PER_CALLS, HEDGES_SAVED_MAX};

/// Saved-up hedges, in parts of which one hedge costs [`HEDGE_PER_CALLS`].
pub(crate) struct HedgeBudget(AtomicU32);

const FULL: u32 = HEDGES_SAVED_MAX * HEDGE_PER_CALLS;

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

impl HedgeBudget {
    /// A call begins.
    pub(crate) fn earn(&self) {
        // Mostly it is full, and nobody writes to what all cores read.
        if self.0.load(Ordering::Relaxed) < FULL {
            let one_more = |saved| (saved < FULL).then_some(saved + 1);
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        }
    }

    /// Whether a hedge may begin; it is paid for.
    pub(crate) fn spend(&self) -> bool {
        let paid = |saved: u32| saved.checked_sub(HEDGE_PER_CALLS);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_so_many_may_be_doubled_once_what_was_saved_is_spent() {
        let budget = HedgeBudget::default();
        budget.earn();
        let saved = (0..10_000).take_while(|_| budget.spend()).count();
        assert_eq!(saved, HEDGES_SAVED_MAX as usize);
        let mut hedges = 0;
        for _ in 0..1_000 {
            budget.earn();
            hedges += u32::from(budget.spend());
        }
        assert_eq!(hedges, 1_000 / HEDGE_PER_CALLS);
    }
}
