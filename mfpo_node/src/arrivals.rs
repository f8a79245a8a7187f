//! How regularly an input arrives. The control thread notes each arrival in memory that is there already, without a lock
//! ([`Arrivals`]); whoever makes the diagnostics reads them some dozen times a second and keeps the figures ([`Periods`]).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metrics::{Live, Moments};
use crate::time::MonoTime;

/// Arrivals that wait for the reader, at most: of an input at 1000 Hz those of a quarter of a second.
const KEPT: usize = 256;
/// A window of the figures lasts so long at least, ns.
const SECOND: u64 = 1_000_000_000;
/// What is noted in place of an arrival where the input begins anew.
const ANEW: u64 = 0;

/// The newest arrivals of one input. One thread writes, others read.
#[derive(Debug)]
pub struct Arrivals {
    /// Arrival number n is at `n % KEPT`, ns of the monotonic clock.
    at: [AtomicU64; KEPT],
    /// How many there were.
    count: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            at: std::array::from_fn(|_| AtomicU64::new(ANEW)),
            count: AtomicU64::new(0),
        }
    }
}

impl Arrivals {
    /// Notes an arrival; only one thread does.
    pub fn note(&self, now: MonoTime) {
        self.push(now.nanos());
    }

    /// The next arrival is a first one again; only the thread that notes them says so.
    pub fn begin_anew(&self) {
        self.push(ANEW);
    }

    /// When the newest one was; `None` where none was, or none since it began anew.
    pub fn newest(&self) -> Option<MonoTime> {
        let newest = self.count().checked_sub(1)?;
        Some(self.read(newest))
            .filter(|at| *at != ANEW)
            .map(MonoTime::from_nanos)
    }

    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    fn push(&self, at: u64) {
        let number = self.count.load(Ordering::Relaxed);
        if let Some(slot) = self.at.get(place(number)) {
            slot.store(at, Ordering::Release);
        }
        self.count.store(number + 1, Ordering::Release);
    }

    fn read(&self, number: u64) -> u64 {
        self.at
            .get(place(number))
            .map_or(ANEW, |slot| slot.load(Ordering::Acquire))
    }

    /// Those from number `first` on, ns; `None` where some of them have been written over.
    fn since(&self, first: u64) -> Option<Vec<u64>> {
        let read = (first..self.count()).map(|number| self.read(number)).collect();
        // The count tells of all that were written meanwhile but one, which takes the place of an older one than these.
        (self.count().saturating_sub(first) < KEPT as u64).then_some(read)
    }
}

fn place(number: u64) -> usize {
    (number % KEPT as u64) as usize
}

/// The times between the arrivals of one input, s: of the last window, which ends with the first arrival a second or more
/// after its beginning, and of the one that lasts. Of a slow input a window is one such time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Periods {
    seen: u64,
    last: Option<MonoTime>,
    /// When the window that lasts has begun.
    start: Option<MonoTime>,
    current: Moments,
    complete: Moments,
    /// The longest time of the window before the last full one: a gap is told for more than a second, whenever it was.
    before: f64,
}

impl Periods {
    /// Takes over what has arrived since the last look; from another robot's input it begins anew.
    pub fn look(&mut self, arrivals: &Arrivals) {
        if arrivals.count() < self.seen {
            *self = Self::default();
        }
        let Some(new) = arrivals.since(self.seen) else {
            // Nobody has looked for too long: what lies between is not known.
            self.seen = arrivals.count();
            (self.last, self.start, self.current) = (None, None, Moments::default());
            return;
        };
        self.seen += new.len() as u64;
        for at in new {
            if at == ANEW {
                *self = Self {
                    seen: self.seen,
                    ..Self::default()
                };
            } else {
                self.arrived(MonoTime::from_nanos(at));
            }
        }
    }

    fn arrived(&mut self, at: MonoTime) {
        let Some(last) = self.last.replace(at) else { return };
        self.current.add(at.since(last) as f64 * 1e-9);
        let start = *self.start.get_or_insert(last);
        if at.since(start) >= SECOND {
            self.before = self.complete.max();
            self.complete = std::mem::take(&mut self.current);
            self.start = Some(at);
        }
    }

    /// The times between arrivals in the last full window, s; `None` while there was none.
    pub fn complete(&self) -> Option<&Moments> {
        Some(&self.complete).filter(|moments| moments.count() > 0)
    }

    /// The longest time without an arrival in the last two full windows and since then, s; that which lasts now counts.
    pub fn longest_gap(&self, now: MonoTime) -> f64 {
        let lasting = self.last.map_or(0, |last| now.since(last)) as f64 * 1e-9;
        let windows = [self.before, self.complete.max(), self.current.max()];
        windows.into_iter().fold(lasting, f64::max)
    }
}

/// The same of each input of the node.
#[derive(Debug, Clone, Copy, Default)]
pub struct InputPeriods {
    /// Every joint has reported anew.
    pub states: Periods,
    /// Heartbeats on topic `enable`, whatever they say.
    pub enable: Periods,
    /// Goals that were taken over.
    pub goal: Periods,
}

impl InputPeriods {
    /// Takes over what has arrived since the last look.
    pub fn look(&mut self, live: &Live) {
        self.states.look(&live.rounds);
        self.enable.look(&live.heartbeats);
        self.goal.look(&live.goals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MonoTime {
        MonoTime::from_nanos(SECOND + ms * 1_000_000)
    }

    fn is_about(got: f64, expected: f64) -> bool {
        (got - expected).abs() < 1e-9
    }

    #[test]
    fn figures_are_those_of_the_last_full_window_and_the_longest_gap_is_also_the_one_that_lasts() {
        let (arrivals, mut periods) = (Arrivals::default(), Periods::default());
        periods.look(&arrivals);
        assert!(periods.complete().is_none() && is_about(periods.longest_gap(at(900)), 0.0));
        // 100 ms apart, one of them 400 ms; looked at in two parts.
        for ms in [0, 100, 200, 600, 700] {
            arrivals.note(at(ms));
        }
        periods.look(&arrivals);
        assert!(periods.complete().is_none(), "no full second yet");
        assert!(is_about(periods.longest_gap(at(700)), 0.4));
        for ms in [800, 900, 1000, 1100] {
            arrivals.note(at(ms));
        }
        periods.look(&arrivals);
        let told = *periods.complete().expect("a full second");
        assert_eq!(told.count(), 7);
        assert!(
            is_about(told.average(), 1.0 / 7.0) && is_about(told.min(), 0.1) && is_about(told.max(), 0.4)
        );
        // Six are off by 0.3/7 s, one by 1.8/7 s.
        assert!(
            (told.standard_deviation() - 0.104_978_132).abs() < 1e-6,
            "{told:?}"
        );
        assert!(is_about(periods.longest_gap(at(1100)), 0.4));
        assert!(is_about(periods.longest_gap(at(3100)), 2.0), "it is silent");
        periods.look(&arrivals);
        assert_eq!(periods.complete(), Some(&told), "nothing has come");
    }

    #[test]
    fn of_a_slow_input_a_window_is_the_time_between_two_arrivals() {
        let (arrivals, mut periods) = (Arrivals::default(), Periods::default());
        for ms in [0, 3_000, 8_000] {
            arrivals.note(at(ms));
        }
        periods.look(&arrivals);
        let told = periods.complete().expect("two windows");
        assert!(told.count() == 1 && is_about(told.average(), 5.0), "{told:?}");
    }

    #[test]
    fn a_time_across_a_new_beginning_or_across_what_nobody_looked_at_is_none() {
        let (arrivals, mut periods) = (Arrivals::default(), Periods::default());
        (0..=11).for_each(|n| arrivals.note(at(100 * n)));
        arrivals.begin_anew();
        assert_eq!(arrivals.newest(), None);
        arrivals.note(at(60_000));
        periods.look(&arrivals);
        assert!(periods.complete().is_none() && is_about(periods.longest_gap(at(60_000)), 0.0));
        // More at once than are kept: the window before stays, and nothing is made of what was written over.
        (1..=15).for_each(|n| arrivals.note(at(60_000 + 100 * n)));
        periods.look(&arrivals);
        let told = *periods.complete().expect("a full second");
        (0..KEPT as u64).for_each(|n| arrivals.note(at(90_000 + n)));
        periods.look(&arrivals);
        assert_eq!(periods.complete(), Some(&told));
        assert!(is_about(periods.longest_gap(at(91_000)), 0.1), "{periods:?}");
        arrivals.note(at(92_000));
        arrivals.note(at(92_100));
        periods.look(&arrivals);
        assert!(is_about(periods.longest_gap(at(92_100)), 0.1), "{periods:?}");
    }

    #[test]
    fn another_robots_input_begins_at_zero() {
        let (first, second, mut periods) = (Arrivals::default(), Arrivals::default(), Periods::default());
        (0..=11).for_each(|n| first.note(at(100 * n)));
        periods.look(&first);
        assert!(periods.complete().is_some());
        second.note(at(9_000));
        periods.look(&second);
        assert!(periods.complete().is_none());
    }

    #[test]
    fn what_is_read_while_it_is_written_is_in_order_or_not_taken() {
        let arrivals = Arrivals::default();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=200_000).for_each(|n| arrivals.note(MonoTime::from_nanos(n))));
            let mut seen = 0;
            while seen < 200_000 {
                match arrivals.since(seen) {
                    Some(new) => {
                        assert!(
                            new.iter().enumerate().all(|(i, at)| *at == seen + i as u64 + 1),
                            "{seen}: {new:?}"
                        );
                        seen += new.len() as u64;
                    }
                    None => seen = arrivals.count(),
                }
            }
        });
    }
}
