//! What piles up in front of the node: a publisher, a bridge or a network that passes on a little less than it is given
//! fills its queue, and each state is a little older than the one before when it arrives. There is never silence, so that
//! neither its age nor [`crate::lateness`] tells. What tells is how much longer than the fastest ones a state took:
//!
//! ```text
//! took = arrival - stamp
//! over = took - least,    least <- min(least + time / FORGOTTEN, took)
//! ```
//!
//! - Only differences of both are looked at, so that the robot's clock may be any clock.
//! - The least is forgotten by 200 us a second: twice what two bad clocks drift apart (100 ppm), which therefore never seems
//!   a delay. Nor does a clock that is slewed by 500 ppm to make up for up to a sixth of a second, where `stale_timeout` is
//!   0.1 s. One that is slowed down faster, and by more than that, does, until it has agreed with this machine's for some
//!   minutes ([`crate::agreement`]), or as much is forgotten: 40 minutes for half a second. Nothing else tells it from a queue
//!   that fills up. A delay that grows by 1 ms a second is told after 125 s; one that grows by less than 12 ms a minute never
//!   is.
//! - A single stamp that is ahead sets no least: two in a row have to be as fast.
//! - A stamp that goes back is a clock that was set: what was over before stays.
//! - What came at once, behind a silence, and is not caught up is over as well.
//! - It is long from `stale_timeout` on, until it is half of that: an input at the limit does not come and go with each state.
//!
//! A queue that was full before the first state came is not seen: nothing tells how fast the way could be.

use crate::lateness::Gap;

/// The least time is forgotten by one part in so many of the time that passes: 200 ppm.
pub const FORGOTTEN: u64 = 5_000;

/// How much longer than the fastest ones the newest state of one joint took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Over the least, ns; below 0 where it alone was faster.
    over: i64,
    is_long: bool,
}

impl Backlog {
    /// By how much the newest state took longer than the fastest ones, ns.
    pub fn over(&self) -> u64 {
        self.over.max(0).unsigned_abs()
    }

    /// Is that too long to act on?
    pub const fn is_long(&self) -> bool {
        self.is_long
    }

    /// A state has arrived, `gap` after the one before.
    pub fn arrived(&mut self, gap: Gap) {
        let Some(stamps) = gap.stamps.filter(|stamps| *stamps >= 0) else {
            return;
        };
        let arrivals = i64::try_from(gap.arrivals).unwrap_or(i64::MAX);
        let over = self
            .over
            .saturating_add(arrivals.saturating_sub(stamps))
            .saturating_sub_unsigned(gap.arrivals / FORGOTTEN);
        // The least is what two in a row have reached.
        let least = over.max(self.over).min(0);
        self.over = over.saturating_sub(least);
    }

    /// Judges what has arrived: too long is above `stale_after` (ns).
    pub fn judge(&mut self, stale_after: u64) {
        let limit = if self.is_long {
            stale_after / 2
        } else {
            stale_after
        };
        self.is_long = self.over() > limit;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const STALE: u64 = 200 * MS;

    /// A joint whose states arrive at some times with some stamps, ms.
    #[derive(Default)]
    struct Joint {
        backlog: Backlog,
        last: Option<(f64, f64)>,
    }

    impl Joint {
        /// Is it too long, and how long, ms?
        fn arrives(&mut self, at: f64, stamp: f64) -> (bool, u64) {
            if let Some((before, stamped)) = self.last.replace((at, stamp)) {
                self.backlog.arrived(Gap {
                    arrivals: ((at - before) * MS as f64).round() as u64,
                    stamps: Some(((stamp - stamped) * MS as f64).round() as i64),
                });
                self.backlog.judge(STALE);
            }
            (self.backlog.is_long(), self.backlog.over() / MS)
        }
    }

    #[test]
    fn a_queue_that_fills_by_a_millisecond_a_second_is_too_long_after_four_minutes() {
        let mut joint = Joint::default();
        let seconds = (0..60_000).map(|n| f64::from(n) * 0.01).find(|sent| {
            // 100 states a second; each is a hundredth of a millisecond later than the one before.
            joint.arrives(1e3 * sent + sent, 1e3 * sent).0
        });
        let seconds = seconds.expect("it is found");
        assert!((240.0..260.0).contains(&seconds), "{seconds} s");
    }

    #[test]
    fn clocks_that_drift_apart_by_100_ppm_are_no_delay_in_a_day() {
        for drift in [-1e-4, 1e-4] {
            let mut joint = Joint::default();
            for n in 0..864_000 {
                let sent = f64::from(n) * 100.0;
                let (is_long, over) = joint.arrives(sent * (1.0 + drift), sent);
                assert!(!is_long && over == 0, "after {sent} ms by {drift}: {over} ms");
            }
        }
    }

    #[test]
    fn it_is_long_until_half_of_it_is_gone() {
        let mut joint = Joint::default();
        joint.arrives(0.0, 0.0);
        assert!(!joint.arrives(200.0, 10.0).0, "190 ms");
        assert!(joint.arrives(220.0, 15.0).0, "205 ms");
        assert!(joint.arrives(240.0, 85.0).0, "155 ms");
        assert!(!joint.arrives(260.0, 170.0).0, "90 ms");
    }

    #[test]
    fn a_single_stamp_ahead_makes_no_other_state_late() {
        let mut joint = Joint::default();
        for n in 0..10 {
            joint.arrives(f64::from(10 * n), f64::from(10 * n));
        }
        assert_eq!(joint.arrives(100.0, 400.0), (false, 0));
        assert_eq!(joint.arrives(410.0, 410.0), (false, 0));
        // Two in a row are the way as it is now.
        joint.arrives(420.0, 520.0);
        joint.arrives(430.0, 530.0);
        let (_, over) = joint.arrives(540.0, 540.0);
        assert!((99..=100).contains(&over), "{over} ms");
    }

    #[test]
    fn a_clock_that_is_set_back_leaves_what_was_over_before() {
        let mut joint = Joint::default();
        joint.arrives(0.0, 1_000.0);
        joint.arrives(100.0, 1_010.0);
        let (_, before) = joint.arrives(110.0, 1_020.0);
        assert!((89..=90).contains(&before), "{before} ms");
        assert_eq!(joint.arrives(400.0, 3.0).1, before);
        assert_eq!(joint.arrives(410.0, 13.0).1, before);
    }

    #[test]
    fn without_stamps_nothing_is_told() {
        let mut backlog = Backlog::default();
        for _ in 0..100 {
            backlog.arrived(Gap {
                arrivals: 900 * MS,
                stamps: None,
            });
            backlog.judge(STALE);
        }
        assert_eq!((backlog.is_long(), backlog.over()), (false, 0));
    }

    proptest! {
        /// Whatever the states take, up to the limit, whatever the robot's clock says: nothing is too long.
        #[test]
        fn a_way_that_takes_now_more_now_less_is_not_too_long(
            took in prop::collection::vec(0.0_f64..199.0, 2..400),
            offset in -1e9_f64..1e9,
        ) {
            let mut joint = Joint::default();
            // Arrivals do not overtake each other.
            let mut arrived: f64 = 0.0;
            for (n, took) in took.into_iter().enumerate() {
                let sent = n as f64 * 10.0;
                arrived = arrived.max(sent + took);
                prop_assert!(arrived - sent <= 199.0);
                let (is_long, over) = joint.arrives(arrived, sent + offset);
                prop_assert!(!is_long, "{over} ms");
            }
        }
    }
}
