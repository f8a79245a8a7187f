//! Does the policy know what it sees? The spread of the candidates that a tick samples anyway is held against what the
//! bundle's guard allows; so many ticks beyond it in a row, and the policy must not act until the spread is back.
//!
//! Off unless the parameter `guard` asks for it: the signal finds wrong units and hardly anything else (docs/results).

use mfpo_policy::guard::GuardManifest;

/// An observation that is outside what the policy knows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unknown {
    /// The spread of the candidates.
    pub spread: f64,
    /// The largest that the bundle allows.
    pub most: f64,
}

/// Watches the spread, tick by tick.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    is_on: bool,
    /// Ticks in a row beyond what is allowed.
    beyond: u32,
    /// What the newest of them saw, once there are enough.
    unknown: Option<Unknown>,
    /// What the last tick that could be judged saw.
    spread: Option<f64>,
}

impl Guard {
    /// Nothing seen yet.
    pub const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            beyond: 0,
            unknown: None,
            spread: None,
        }
    }

    /// Switches it on or off; what was seen before counts no more where it is off.
    pub fn set(&mut self, is_on: bool) {
        if !is_on {
            *self = Self::new(false);
        }
        self.is_on = is_on;
    }

    /// Counts anew: another policy, or another beginning.
    pub fn restart(&mut self) {
        *self = Self::new(self.is_on);
    }

    /// Is it on?
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// What a tick's candidates say. `None` where there were too few of them to be judged: that interrupts the row.
    pub fn check(&mut self, manifest: Option<GuardManifest>, spread: Option<f64>) -> Option<Unknown> {
        self.spread = spread.filter(|_| self.is_on);
        self.unknown = None;
        let (Some(guard), Some(spread)) = (manifest, self.spread) else {
            self.beyond = 0;
            return None;
        };
        if spread <= guard.spread_max {
            self.beyond = 0;
            return None;
        }
        self.beyond = self.beyond.saturating_add(1);
        if self.beyond >= guard.in_a_row {
            self.unknown = Some(Unknown {
                spread,
                most: guard.spread_max,
            });
        }
        self.unknown
    }

    /// Why the policy must not act, as it was seen last.
    pub const fn unknown(&self) -> Option<Unknown> {
        self.unknown
    }

    /// The spread that was judged last.
    pub const fn spread(&self) -> Option<f64> {
        self.spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: GuardManifest = GuardManifest {
        spread_max: 0.2,
        candidates: 8,
        in_a_row: 3,
    };

    fn trips(guard: &mut Guard, spreads: &[f64]) -> Vec<bool> {
        let seen = spreads.iter().map(|spread| Some(*spread));
        seen.map(|spread| guard.check(Some(MANIFEST), spread).is_some())
            .collect()
    }

    #[test]
    fn it_takes_so_many_ticks_in_a_row_and_stays_until_the_spread_is_back() {
        let mut guard = Guard::new(true);
        let spreads = [0.3, 0.3, 0.2, 0.3, 0.3, 0.3, 0.9, 0.2, 0.3];
        let tripped = [false, false, false, false, false, true, true, false, false];
        assert_eq!(
            trips(&mut guard, &spreads),
            tripped,
            "at the limit is not beyond it"
        );
        assert_eq!(guard.unknown(), None);
    }

    #[test]
    fn a_tick_with_too_few_candidates_interrupts_the_row() {
        let mut guard = Guard::new(true);
        assert_eq!(trips(&mut guard, &[0.3, 0.3]), [false, false]);
        assert_eq!(guard.check(Some(MANIFEST), None), None);
        assert_eq!(trips(&mut guard, &[0.3, 0.3, 0.3]), [false, false, true]);
        guard.restart();
        assert_eq!(trips(&mut guard, &[0.3]), [false]);
    }

    #[test]
    fn off_and_without_a_manifest_it_says_nothing() {
        assert_eq!(trips(&mut Guard::new(false), &[0.9; 9]), [false; 9]);
        assert_eq!(Guard::new(true).check(None, Some(0.9)), None);
    }
}
