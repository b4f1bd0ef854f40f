//! How many calls may be doubled because a server is silent: a share of all, so that a cluster that is slow as a whole is not
//! loaded twice.

use std::sync::atomic::{AtomicU32, Ordering};

use hay_common::limits::{HEDGE_PER_CALLS, HEDGES_SAVED_MAX, MIB};

/// Saved-up hedges, in parts: a call earns one for itself and one for each MiB, and to double it costs
/// [`HEDGE_PER_CALLS`] times as many.
pub(crate) struct HedgeBudget(AtomicU32);

const FULL: u32 = HEDGES_SAVED_MAX * HEDGE_PER_CALLS;

impl Default for HedgeBudget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

/// What a call with so many bytes weighs.
fn weight(bytes: usize) -> u32 {
    u32::try_from(1 + bytes / MIB).unwrap_or(u32::MAX)
}

fn price(bytes: usize) -> u32 {
    weight(bytes).saturating_mul(HEDGE_PER_CALLS)
}

impl HedgeBudget {
    /// A call with so many bytes begins.
    pub(crate) fn earn(&self, bytes: usize) {
        self.save(weight(bytes));
    }

    /// A doubled call was worth it.
    pub(crate) fn refund(&self, bytes: usize) {
        self.save(price(bytes));
    }

    fn save(&self, parts: u32) {
        // Mostly it is full, and nobody writes to what all cores read.
        if self.0.load(Ordering::Relaxed) < FULL {
            let more = |saved: u32| (saved < FULL).then_some(saved.saturating_add(parts).min(FULL));
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Whether a call with so many bytes may be doubled; it is paid for.
    pub(crate) fn spend(&self, bytes: usize) -> bool {
        let paid = |saved: u32| saved.checked_sub(price(bytes));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_so_many_may_be_doubled_once_what_was_saved_is_spent() {
        let budget = HedgeBudget::default();
        budget.earn(0);
        let saved = (0..10_000).take_while(|_| budget.spend(100)).count();
        assert_eq!(saved, HEDGES_SAVED_MAX as usize);
        let mut hedges = 0;
        for _ in 0..1_000 {
            budget.earn(100);
            hedges += u32::from(budget.spend(100));
        }
        assert_eq!(hedges, 1_000 / HEDGE_PER_CALLS);
    }

    #[test]
    fn large_ones_cost_more_and_what_was_worth_it_costs_nothing() {
        let budget = HedgeBudget::default();
        let saved = (0..10_000).take_while(|_| budget.spend(8 * MIB)).count();
        assert_eq!(saved, HEDGES_SAVED_MAX as usize / 9);
        budget.refund(8 * MIB);
        assert!(budget.spend(8 * MIB) && !budget.spend(8 * MIB));
        budget.refund(usize::MAX);
        assert_eq!(budget.0.load(Ordering::Relaxed), FULL, "no more than may be saved");
    }
}
