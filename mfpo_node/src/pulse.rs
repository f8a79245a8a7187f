//! Does the control thread still come round? It says so each time, at least 100 times a second; the service, on a thread of
//! its own, sees where it has not: it is stuck in the middleware, in a driver, or gets no processor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::time::MonoTime;

/// A silence is told in steps of so much, ns: not every look is news.
const STEP: u64 = 100_000_000;

/// When the control thread came round last.
#[derive(Debug, Default)]
pub struct Pulse {
    /// ns of the monotonic clock; 0 before the first time.
    last: AtomicU64,
    has_finished: AtomicBool,
}

impl Pulse {
    /// It has come round; only the control thread says so.
    pub fn beat(&self, now: MonoTime) {
        self.last.store(now.nanos(), Ordering::Relaxed);
    }

    /// It has sent its last command, and comes round no more; only the control thread says so.
    pub fn finish(&self, now: MonoTime) {
        self.beat(now);
        // What it has told until now is there for whoever sees this.
        self.has_finished.store(true, Ordering::Release);
    }

    /// Has it sent its last command?
    pub fn has_finished(&self) -> bool {
        self.has_finished.load(Ordering::Acquire)
    }

    /// Time since, ns; 0 before the first time.
    pub fn silence(&self, now: MonoTime) -> u64 {
        match self.last.load(Ordering::Relaxed) {
            0 => 0,
            last => now.since(MonoTime::from_nanos(last)),
        }
    }
}

/// Whether it stands still, as it is seen from another thread.
#[derive(Debug, Default)]
pub struct Standstill {
    is_suspected: bool,
}

impl Standstill {
    /// Looks again: for how long the thread has been standing still, ns, where that is longer than `limit` at two looks in a
    /// row. After one alone the whole process may have been held up, and the looker gone on first.
    pub fn look(&mut self, pulse: &Pulse, limit: u64, now: MonoTime) -> Option<u64> {
        let silence = pulse.silence(now);
        let is_long = silence > limit;
        let was_long = std::mem::replace(&mut self.is_suspected, is_long);
        (is_long && was_long).then_some(silence / STEP * STEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(5_000 * MS + ms * MS)
    }

    #[test]
    fn a_thread_stands_still_where_two_looks_in_a_row_find_it_silent() {
        let (pulse, mut standstill) = (Pulse::default(), Standstill::default());
        let mut look = |pulse: &Pulse, ms: u64| standstill.look(pulse, 500 * MS, at(ms));
        assert_eq!((look(&pulse, 0), look(&pulse, 9_000)), (None, None), "not begun");
        pulse.beat(at(0));
        assert_eq!((look(&pulse, 400), look(&pulse, 500)), (None, None));
        assert_eq!(look(&pulse, 520), None, "one look");
        assert_eq!(look(&pulse, 540), Some(500 * MS));
        assert_eq!(look(&pulse, 760), Some(700 * MS));
        pulse.beat(at(765));
        assert_eq!(look(&pulse, 780), None, "it has come round");
        // The process was held up, and the looker goes on first.
        assert_eq!(look(&pulse, 3_000), None);
        pulse.beat(at(3_001));
        assert_eq!(look(&pulse, 3_020), None);
    }
}
