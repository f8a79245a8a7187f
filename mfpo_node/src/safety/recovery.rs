//! When the policy takes over again from the fallback: after so many good inputs in a row, or only when somebody says
//! so. An input is good when every joint has reported anew and nothing else speaks against acting.

use crate::time::MonoTime;

/// Remembers that the fallback commands, and how many good inputs have come since.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Good inputs in a row after which the policy takes over again; `None` waits for an explicit start.
    needed: Option<u64>,
    good: u64,
    has_fallen: bool,
    /// Arrival of the input that was counted last.
    counted: Option<MonoTime>,
}

impl Recovery {
    /// The policy acts; after a fallback it takes over after `needed` good inputs, with 0 only on an explicit start.
    pub const fn new(needed: u64) -> Self {
        Self {
            needed: if needed > 0 { Some(needed) } else { None },
            good: 0,
            has_fallen: false,
            counted: None,
        }
    }

    /// Changes the number of good inputs.
    pub const fn set_needed(&mut self, needed: u64) {
        self.needed = if needed > 0 { Some(needed) } else { None };
    }

    /// What a tick has seen: may the policy act on it, and when did the oldest joint of it arrive?
    pub fn seen(&mut self, is_fit: bool, arrived: Option<MonoTime>) {
        if !is_fit {
            self.good = 0;
        } else if arrived != self.counted {
            self.good = self.good.saturating_add(1);
        }
        self.counted = arrived;
    }

    /// What was seen last was not good after all.
    pub const fn unfit(&mut self) {
        self.good = 0;
    }

    /// The fallback commands; `true` when it did not before.
    pub const fn fell(&mut self) -> bool {
        if self.has_fallen {
            return false;
        }
        self.has_fallen = true;
        self.good = 0;
        true
    }

    /// May the policy act?
    pub fn is_over(&self) -> bool {
        !self.has_fallen || self.needed.is_some_and(|needed| self.good >= needed)
    }

    /// The policy acts, or somebody wants it to; `true` when the fallback commanded before.
    pub const fn recovered(&mut self) -> bool {
        let had_fallen = self.has_fallen;
        self.has_fallen = false;
        had_fallen
    }

    /// Good inputs so far, and how many are needed.
    pub const fn progress(&self) -> (u64, Option<u64>) {
        (self.good, self.needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Option<MonoTime> {
        Some(MonoTime::from_nanos(n))
    }

    #[test]
    fn the_policy_takes_over_after_so_many_good_inputs_in_a_row() {
        let mut recovery = Recovery::new(3);
        assert!(recovery.is_over() && recovery.fell() && !recovery.fell());
        for (n, is_fit, is_over) in [
            (1, true, false),
            (2, true, false),
            (3, false, false),
            (4, true, false),
            (5, true, false),
            // The same input again is not another one.
            (5, true, false),
            (6, true, true),
        ] {
            recovery.seen(is_fit, at(n));
            assert_eq!(recovery.is_over(), is_over, "input {n}");
        }
        assert!(recovery.recovered() && !recovery.recovered());
    }

    #[test]
    fn with_none_needed_only_an_explicit_start_ends_a_fallback() {
        let mut recovery = Recovery::new(0);
        recovery.fell();
        (0..1000).for_each(|n| recovery.seen(true, at(n)));
        assert!(!recovery.is_over());
        assert!(recovery.recovered());
        assert!(recovery.is_over());
    }
}
