//! Whether a joint's stamps agree with this machine's own clock. Everything else goes by differences of stamps, for which a
//! robot's clock that is set or slowed down to be right looks like a delay that came or grew and that nobody catches up
//! ([`crate::lateness`], [`crate::backlog`]). What tells them apart is where it ends: stamps of a clock that was set right say
//! the time of this machine from then on.
//!
//! ```text
//! |arrival by the system's clock - stamp| <= stale_timeout / 4    for stale_timeout / 2 * FORGOTTEN
//! ```
//!
//! - It has to be so for as long as a delay needs that grows or shrinks by no more than what is forgotten of one anyway
//!   (200 ppm): each faster one is through by then. At `stale_timeout` 0.1 s that is 250 s.
//! - States that were held up in between do not matter, as long as another one agrees within a second.
//! - Two clocks that agree only because one is ahead by just what the states are late cannot be told from two that are right.

use crate::backlog::FORGOTTEN;
use crate::time::MonoTime;

/// States that do not agree for longer than this, ns, or than `stale_timeout`, begin anew.
const LAPSE: u64 = 1_000_000_000;

/// Since when a joint's stamps agree with the system's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    /// When it began, and when a state agreed last.
    spell: Option<(MonoTime, MonoTime)>,
}

impl Agreement {
    /// A state has arrived that is as old (ns) by the system's clock, where that can be told: is it no older than it seems,
    /// because both clocks have agreed for long enough?
    pub fn holds(&mut self, now: MonoTime, age: Option<i64>, stale_after: u64) -> bool {
        let slack = stale_after / 4;
        if age.is_none_or(|age| age.unsigned_abs() > slack) {
            return false;
        }
        let lapse = LAPSE.max(stale_after);
        let lasting = self.spell.filter(|(_, last)| now.since(*last) <= lapse);
        let began = lasting.map_or(now, |(began, _)| began);
        self.spell = Some((began, now));
        now.since(began) >= 2 * slack * FORGOTTEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const STALE: u64 = 100 * MS;

    /// States ten times a second, each as old as told at its time (s), ms; when agreement holds for the first time, s.
    fn holds_after(seconds: u32, age: impl Fn(f64) -> Option<f64>) -> Option<f64> {
        let mut agreement = Agreement::default();
        (0..10 * seconds).map(|n| 0.1 * f64::from(n)).find(|at| {
            let now = MonoTime::from_nanos((at * 1e9).round() as u64);
            let age = age(*at).map(|ms| (ms * MS as f64).round() as i64);
            agreement.holds(now, age, STALE)
        })
    }

    #[test]
    fn clocks_agree_when_they_have_for_minutes() {
        let after = holds_after(400, |at| Some(if at < 20.0 { -700.0 } else { 3.0 }));
        assert!(after.is_some_and(|at| (270.0..270.2).contains(&at)), "{after:?}");
        assert_eq!(holds_after(1_000, |_| Some(-26.0)), None, "ahead");
        assert_eq!(holds_after(1_000, |_| Some(26.0)), None, "late");
        assert_eq!(holds_after(1_000, |_| None), None, "no stamps");
    }

    #[test]
    fn a_delay_that_passes_the_right_time_on_its_way_is_none() {
        for ppm in [210.0, 1_000.0, 50_000.0, 500_000.0] {
            for sign in [-1.0, 1.0] {
                let age = |at: f64| Some(sign * (1e-3 * ppm * at - 200.0));
                assert_eq!(holds_after(4_000, age), None, "{sign} {ppm}");
            }
        }
    }

    #[test]
    fn what_is_held_up_now_and_then_does_not_matter_and_what_does_not_agree_for_long_does() {
        let hiccups = |at: f64| Some(if at % 10.0 < 0.75 { 60.0 } else { 5.0 });
        assert!(holds_after(300, hiccups).is_some());
        let lapses = |at: f64| Some(if at % 200.0 < 1.5 { 60.0 } else { 5.0 });
        assert_eq!(holds_after(1_000, lapses), None);
    }
}
