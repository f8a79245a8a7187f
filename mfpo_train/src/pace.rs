//! How long the rest of a run takes: the steps that are left, at the speed of late.
//!
//! Steps with updates take a hundred times as long as the random ones before them, and a run that goes on has done its first
//! steps in no time: a pace is of one phase of one program. Evaluations belong to it, so that it looks back over minutes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The pace is that of about this time.
const WINDOW: Duration = Duration::from_secs(300);
/// Less time tells nothing.
const LEAST: Duration = Duration::from_secs(2);
/// Between two marks that are kept.
const BETWEEN: Duration = Duration::from_secs(1);

/// How fast the steps of a phase are done.
#[derive(Debug)]
pub struct Pace {
    /// When how many steps were done, the oldest first; never empty.
    marks: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// A phase that begins `now`, after `step` steps.
    pub fn new(step: u64, now: Instant) -> Self {
        Self {
            marks: VecDeque::from([(now, step)]),
        }
    }

    /// Seconds until all `steps` are done, of which `step` are; `None` while that is not known.
    pub fn left(&mut self, step: u64, steps: u64, now: Instant) -> Option<f64> {
        let age = |(at, _): &(Instant, u64)| now.duration_since(*at);
        while self.marks.get(1).is_some_and(|mark| age(mark) >= WINDOW) {
            self.marks.pop_front();
        }
        if self.marks.back().is_none_or(|mark| age(mark) >= BETWEEN) {
            self.marks.push_back((now, step));
        }
        let oldest = self.marks.front()?;
        let (time, done) = (age(oldest), step.saturating_sub(oldest.1));
        if time < LEAST || done == 0 {
            return None;
        }
        Some(steps.saturating_sub(step) as f64 * time.as_secs_f64() / done as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_the_phase_says_nothing() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(900_000, start);
        assert_eq!(pace.left(900_010, 1_000_000, at(1)), None, "too soon to tell");
        for second in 2..20 {
            let left = pace.left(900_000 + 10 * second, 1_000_000, at(second)).unwrap();
            let expected = (100_000 - 10 * second) as f64 / 10.0;
            assert!((left - expected).abs() < 1e-6, "{left} {expected}");
        }
        assert_eq!(pace.left(1_000_000, 1_000_000, at(21)), Some(0.0));
    }

    #[test]
    fn a_change_of_speed_is_all_that_counts_after_the_window() {
        let start = Instant::now();
        let mut pace = Pace::new(0, start);
        let mut step = 0;
        let mut left = None;
        for second in 1..=700 {
            step += if second <= 350 { 100 } else { 1 };
            left = pace.left(step, 100_000, start + Duration::from_secs(second));
        }
        let expected = (100_000 - step) as f64;
        let left = left.unwrap();
        assert!((left / expected - 1.0).abs() < 0.01, "{left} {expected}");
        assert!(pace.marks.len() < 310, "{}", pace.marks.len());
    }

    #[test]
    fn while_nothing_is_done_nothing_is_known() {
        let start = Instant::now();
        let mut pace = Pace::new(7, start);
        assert_eq!(pace.left(7, 10, start + Duration::from_secs(60)), None);
    }
}
