//! How late a state is that was held up on its way. The age of a state counts from its arrival, which is the truth as
//! long as states arrive as they are sent. Where the node, its host or the network stood still for a while, what waited in
//! queues arrives at once, and it is as old as the stamps say: between two states there is then more time by their
//! arrivals than by their stamps. Only differences are looked at, so that the robot's clock may be any clock.
//!
//! - A state is late where there was silence before it, longer than a state is good for, and its stamp tells of less time
//!   than the silence has lasted. Those that follow are late by that, less what they catch up. (What a shorter silence held
//!   up is younger than that, and a slow simulator is not late.)
//! - A delay that no state catches up is none in a simulator's time: the simulator was paused. Any other is a queue that stays
//!   full, and what comes out of it stays old. It may be a clock, too, that was set back by less than the silence: that is
//!   forgotten once the clock agrees with this machine's ([`crate::agreement`]), or by 200 ppm, as clocks drift.
//! - A stamp that goes back is a clock that was set: queues keep the order.
//! - What is held up a little more with each state, without any silence, is the [`Backlog`].
//! - Without stamps nothing tells how old a state is: those that come right behind such a silence count as late.

use crate::agreement::Agreement;
use crate::backlog::{Backlog, FORGOTTEN};
use crate::time::MonoTime;

/// A delay that is not caught up in this time, by half of it at least, stays, ns; in a simulator's time it is none.
const PATIENCE: u64 = 500_000_000;
/// States without stamps are late for this time behind a gap, ns; queues are read faster than that.
const SETTLING: u64 = 50_000_000;

/// The time since the state before, ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// By their arrivals.
    pub arrivals: u64,
    /// By their stamps, where both have one.
    pub stamps: Option<i64>,
}

/// What else a state is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Silence is a gap above this, ns.
    pub stale_after: u64,
    /// Do stamps tell of a simulator's time?
    pub is_simulated: bool,
    /// How old the state is by the system's clock, ns, negative where it is ahead; `None` where that cannot be told.
    pub age: Option<i64>,
}

/// How late the newest state of one joint was when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    lag: u64,
    /// Since when it is waited for the delay to be caught up, and how long it was then.
    since: MonoTime,
    then: u64,
    backlog: Backlog,
    agreement: Agreement,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            lag: 0,
            since: MonoTime::from_nanos(0),
            then: 0,
            backlog: Backlog::default(),
            agreement: Agreement::default(),
        }
    }
}

impl Lateness {
    /// By how much the newest state was late, ns; 0 where it was not.
    pub const fn lag(&self) -> u64 {
        self.lag
    }

    /// What has piled up in front of the node.
    pub const fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// A state has arrived, `gap` after the one before.
    pub fn arrived(&mut self, now: MonoTime, gap: Gap, terms: Terms) {
        self.backlog.arrived(gap);
        match gap.stamps {
            None => self.arrived_unstamped(now, gap.arrivals, terms.stale_after),
            Some(stamps) if stamps < 0 => self.lag = 0,
            Some(stamps) => self.arrived_stamped(now, (gap.arrivals, stamps), terms),
        }
        self.backlog.judge(terms.stale_after);
        let is_right = self.agreement.holds(now, terms.age, terms.stale_after);
        if is_right && (self.lag > 0 || self.backlog.is_long()) {
            (self.lag, self.backlog) = (0, Backlog::default());
        }
    }

    fn arrived_unstamped(&mut self, now: MonoTime, arrivals: u64, stale_after: u64) {
        if arrivals > stale_after {
            self.begin(now, arrivals);
        } else if now.since(self.since) > SETTLING {
            self.lag = 0;
        }
    }

    fn arrived_stamped(&mut self, now: MonoTime, (arrivals, stamps): (u64, i64), terms: Terms) {
        let was_silent = arrivals > terms.stale_after;
        let slack = terms.stale_after / 4;
        let later = i64::try_from(arrivals).unwrap_or(i64::MAX) - stamps;
        let lag = self.lag.saturating_add_signed(later);
        if was_silent && later > slack.cast_signed() {
            self.begin(now, lag);
        } else if self.lag > 0 {
            self.follow(now, lag, slack, terms.is_simulated);
        }
    }

    fn begin(&mut self, now: MonoTime, lag: u64) {
        (self.lag, self.since, self.then) = (lag, now, lag);
    }

    fn follow(&mut self, now: MonoTime, lag: u64, slack: u64, is_simulated: bool) {
        let waited = now.since(self.since);
        self.lag = lag;
        if lag <= slack {
            self.lag = 0;
        } else if waited >= PATIENCE {
            let is_caught_up = self.then.saturating_sub(lag) >= PATIENCE / 2;
            let stays = match (is_caught_up, is_simulated) {
                (true, _) => lag,
                (false, true) => 0,
                (false, false) => lag.saturating_sub(waited / FORGOTTEN),
            };
            self.begin(now, stays);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    const STALE: u64 = 200 * MS;

    /// A robot whose states arrive at some times, by some clock; what is thought of the last one, ms.
    #[derive(Default)]
    struct Robot {
        lateness: Lateness,
        last: Option<(u64, i64)>,
        is_simulated: bool,
        /// By how much the system's clock is ahead of the times, where that is known, ms.
        system: Option<i64>,
    }

    impl Robot {
        fn arrives(&mut self, at: u64, stamp: Option<i64>) -> u64 {
            if let Some((before, stamped)) = self.last {
                let gap = Gap {
                    arrivals: (at - before) * MS,
                    stamps: stamp.map(|stamp| (stamp - stamped) * MS.cast_signed()),
                };
                let age = self.system.zip(stamp);
                let age = age.map(|(ahead, stamp)| (at.cast_signed() + ahead - stamp) * MS.cast_signed());
                let terms = Terms {
                    stale_after: STALE,
                    is_simulated: self.is_simulated,
                    age,
                };
                self.lateness.arrived(MonoTime::from_nanos(at * MS), gap, terms);
            }
            self.last = Some((at, stamp.unwrap_or(0)));
            self.lateness.lag() / MS
        }

        /// States 20 times a second through these seconds, each with the stamp of its time; is every one of them late?
        fn is_late_throughout(&mut self, seconds: std::ops::Range<u64>, stamp: impl Fn(u64) -> i64) -> bool {
            let mut times = (1_000 * seconds.start..1_000 * seconds.end).step_by(50);
            times.all(|at| self.arrives(at, Some(stamp(at))) > 0)
        }
    }

    #[test]
    fn what_waited_in_a_queue_is_as_old_as_its_stamps_say() {
        let mut robot = Robot::default();
        assert_eq!(robot.arrives(0, Some(7_000)), 0);
        // The node stood still for a second; the queue is read within a few milliseconds.
        assert_eq!(robot.arrives(1_000, Some(7_010)), 990);
        assert_eq!(robot.arrives(1_001, Some(7_400)), 601);
        assert_eq!(robot.arrives(1_002, Some(7_800)), 202);
        assert_eq!(robot.arrives(1_003, Some(8_001)), 0, "the newest one is not late");
        assert_eq!(robot.arrives(1_013, Some(8_011)), 0);
    }

    #[test]
    fn a_robot_that_was_silent_is_not_late() {
        let mut robot = Robot::default();
        robot.arrives(0, Some(100));
        assert_eq!(robot.arrives(5_000, Some(5_100)), 0);
    }

    #[test]
    fn a_simulator_that_was_paused_is_believed_after_a_while() {
        let mut robot = Robot {
            is_simulated: true,
            ..Robot::default()
        };
        robot.arrives(0, Some(0));
        assert_eq!(robot.arrives(5_000, Some(10)), 4_990);
        for n in 1..50 {
            assert!(
                robot.arrives(5_000 + 10 * n, Some(10 + 10 * n.cast_signed())) > 0,
                "{n}"
            );
        }
        assert_eq!(robot.arrives(5_500, Some(510)), 0);
    }

    #[test]
    fn a_queue_that_stays_full_stays_late_until_it_is_empty() {
        // By the system's clock they are as old, or nobody knows.
        for system in [None, Some(0)] {
            let mut robot = Robot {
                system,
                ..Robot::default()
            };
            robot.arrives(1_000, Some(1_000));
            assert!(robot.is_late_throughout(6..1_806, |at| at.cast_signed() - 5_000));
            let (lag, over) = (robot.lateness.lag() / MS, robot.lateness.backlog().over() / MS);
            assert!((4_620..4_650).contains(&lag), "200 ppm of half an hour: {lag} ms");
            assert!((4_620..4_650).contains(&over), "{over} ms");
            assert!(robot.lateness.backlog().is_long());
            assert_eq!(robot.arrives(1_806_000, Some(1_805_999)), 0);
            assert!(!robot.lateness.backlog().is_long());
        }
    }

    #[test]
    fn a_clock_that_was_set_right_in_a_silence_is_believed_once_it_agrees_for_minutes() {
        let mut robot = Robot {
            system: Some(70_000),
            ..Robot::default()
        };
        // 3 s ahead, and set right in a silence of 8 s.
        robot.arrives(1_000, Some(74_000));
        let right = |at: u64| at.cast_signed() + 70_000;
        assert!(robot.is_late_throughout(9..508, right));
        assert!(!robot.is_late_throughout(508..510, right));
        assert_eq!(robot.lateness.lag(), 0);
        assert!(!robot.lateness.backlog().is_long());
    }

    #[test]
    fn a_clock_that_was_slowed_down_until_it_is_right_is_believed_once_it_agrees_for_minutes() {
        // Half a second ahead, and slowed down by a twelfth until it is right.
        let stamp = |at: u64| at.cast_signed() + (500 - at.cast_signed() / 12).max(0);
        for (system, expected) in [(Some(0), 8), (None, 33)] {
            let mut robot = Robot {
                system,
                ..Robot::default()
            };
            let believed = (0..3_600).find(|second| {
                robot.is_late_throughout(*second..second + 1, stamp);
                *second > 10 && !robot.lateness.backlog().is_long()
            });
            let minutes = believed.map(|second| second / 60);
            assert_eq!(minutes, Some(expected), "{system:?}");
        }
    }

    #[test]
    fn a_queue_that_is_read_slowly_is_late_until_it_is_empty() {
        let mut robot = Robot::default();
        robot.arrives(0, Some(0));
        robot.arrives(4_000, Some(10));
        // Twice as fast as they were sent, for four seconds.
        for n in 1..390 {
            let late = robot.arrives(4_000 + 10 * n, Some(10 + 20 * n.cast_signed()));
            assert_eq!(late, 3_990 - 10 * n, "{n}");
        }
        assert_eq!(robot.arrives(7_950, Some(7_950)), 0);
    }

    #[test]
    fn a_clock_that_was_set_is_not_a_delay() {
        let mut robot = Robot::default();
        robot.arrives(0, Some(10_000));
        assert_eq!(robot.arrives(300, Some(300)), 0, "set back");
        assert_eq!(robot.arrives(310, Some(90_000)), 0, "set ahead");
    }

    #[test]
    fn a_slow_simulator_is_not_late() {
        let mut robot = Robot::default();
        for n in 0..1_000 {
            assert_eq!(
                robot.arrives(150 * n, Some(30 * n.cast_signed())),
                0,
                "a fifth of the speed, seven states a second"
            );
        }
    }

    #[test]
    fn without_stamps_what_comes_right_behind_a_gap_is_late() {
        let mut robot = Robot::default();
        robot.arrives(0, None);
        assert!(robot.arrives(1_000, None) > 0);
        assert!(robot.arrives(1_010, None) > 0);
        assert_eq!(robot.arrives(1_060, None), 0);
    }

    proptest! {
        /// Whatever is held up for however long: a state that counts as not late is no older than the slack, where its
        /// clock goes right and the queue is read within half a second.
        #[test]
        fn no_state_seems_younger_than_it_is_by_more_than_the_slack(
            hold in 201_u64..5_000,
            period in 1_u64..50,
            offset in -100_000_i64..100_000,
        ) {
            let mut robot = Robot::default();
            for sent in (0..1_000).map(|n| n * period) {
                let arrives = if sent < 200 { sent } else { sent.max(200 + hold) };
                let lag = robot.arrives(arrives, Some(sent.cast_signed() + offset));
                let age = arrives - sent;
                prop_assert!(lag + 50 + period >= age, "{sent}: {lag} {age}");
            }
        }
    }
}
