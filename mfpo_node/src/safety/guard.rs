//! Does the policy know what it sees? What the candidates that a tick samples anyway tell of that - the signals of
//! [`mfpo_policy::guard`] - is held against what the bundle's guard allows; one of them beyond it so many ticks in a row, and
//! the policy must not act until that one is back.
//!
//! Off unless the parameter `guard` asks for it: the signals find wrong units and hardly anything else (docs/results).

use mfpo_policy::guard::{GuardManifest, InARow, Signals};

pub use mfpo_policy::guard::Unknown;

/// Watches the signals, tick by tick.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    is_on: bool,
    in_a_row: InARow,
    /// What the newest tick saw, once there are enough beyond what is allowed.
    unknown: Option<Unknown>,
    /// What the last tick that could be judged saw.
    signals: Signals,
}

impl Guard {
    /// Nothing seen yet.
    pub const fn new(is_on: bool) -> Self {
        Self {
            is_on,
            in_a_row: InARow::new(),
            unknown: None,
            signals: Signals::NONE,
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
    pub fn check(&mut self, manifest: Option<GuardManifest>, signals: Option<Signals>) -> Option<Unknown> {
        let signals = signals.filter(|_| self.is_on);
        self.signals = signals.unwrap_or(Signals::NONE);
        self.unknown = match (manifest, signals) {
            (Some(guard), Some(signals)) => self.in_a_row.count(&guard, &signals),
            _ => {
                self.in_a_row = InARow::new();
                None
            }
        };
        self.unknown
    }

    /// Why the policy must not act, as it was seen last.
    pub const fn unknown(&self) -> Option<Unknown> {
        self.unknown
    }

    /// The signals that were judged last.
    pub const fn signals(&self) -> Signals {
        self.signals
    }
}

#[cfg(test)]
mod tests {
    use mfpo_policy::guard::Signal;

    use super::*;

    const MANIFEST: GuardManifest = GuardManifest {
        disagreement_max: None,
        spread_max: Some(0.2),
        value_min: Some(-5.0),
        candidates: 8,
        in_a_row: 3,
    };

    fn seen(spread: f64, value: f64) -> Signals {
        Signals {
            disagreement: None,
            spread: Some(spread),
            value: Some(value),
        }
    }

    fn trips(guard: &mut Guard, spreads: &[f64]) -> Vec<bool> {
        let seen = spreads.iter().map(|spread| Some(seen(*spread, 0.0)));
        seen.map(|signals| guard.check(Some(MANIFEST), signals).is_some())
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
    fn any_signal_trips_it_and_is_named_with_what_it_is_and_what_is_allowed() {
        let mut guard = Guard::new(true);
        for _ in 0..2 {
            assert_eq!(guard.check(Some(MANIFEST), Some(seen(0.1, -6.0))), None);
        }
        let unknown = guard.check(Some(MANIFEST), Some(seen(0.9, -7.0)));
        let expected = Unknown {
            signal: Signal::Value,
            got: -7.0,
            limit: -5.0,
        };
        assert_eq!(unknown, Some(expected));
        assert_eq!(guard.signals(), seen(0.9, -7.0));
        assert_eq!(
            expected.to_string(),
            "its best candidate is valued at -7.0000, expected at least -5.0000"
        );
        // The value is back, the spread is not there yet.
        assert_eq!(guard.check(Some(MANIFEST), Some(seen(0.9, 0.0))), None);
        let unknown = guard.check(Some(MANIFEST), Some(seen(0.9, 0.0)));
        assert_eq!(unknown.map(|unknown| unknown.signal), Some(Signal::Spread));
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
        let mut guard = Guard::new(true);
        for _ in 0..9 {
            assert_eq!(guard.check(None, Some(seen(0.9, -9.0))), None);
        }
    }
}
