//! How late a state is that was held up on its way. The age of a state counts from its arrival, which is the truth as
//! long as states arrive as they are sent. Where the node, its host or the network stood still for a while, what waited in
//! queues arrives at once, and it is as old as the stamps say: between two states there is then more time by their
//! arrivals than by their stamps. Only differences are looked at, so that the robot's clock may be any clock.
//!
//! - A state is late where there was silence before it, longer than a state is good for, and its stamp tells of less time
//!   than the silence has lasted. Those that follow are late by that, less what they catch up. (What a shorter silence held
//!   up is younger than that, and a slow simulator is not late.)
//! - A delay that no state catches up is not one: a simulator was paused, or a clock set. It is forgiven after a while.
//! - A stamp that goes back is a clock that was set: queues keep the order.
//! - What is held up a little more with each state, without any silence, is the [`Backlog`].
//! - Without stamps nothing tells how old a state is: those that come right behind such a silence count as late.

use crate::backlog::Backlog;
use crate::time::MonoTime;

/// A delay that is not caught up in this time, by half of it at least, is none, ns.
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

/// How late the newest state of one joint was when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    lag: u64,
    /// Since when it is waited for the delay to be caught up, and how long it was then.
    since: MonoTime,
    then: u64,
    backlog: Backlog,
}

impl Default for Lateness {
    fn default() -> Self {
        Self {
            lag: 0,
            since: MonoTime::from_nanos(0),
            then: 0,
            backlog: Backlog::default(),
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

    /// A state has arrived, `gap` after the one before. Silence is a gap above `stale_after` (ns).
    pub fn arrived(&mut self, now: MonoTime, gap: Gap, stale_after: u64) {
        self.backlog.arrived(gap);
        match gap.stamps {
            None => self.arrived_unstamped(now, gap.arrivals, stale_after),
            Some(stamps) if stamps < 0 => self.lag = 0,
            Some(stamps) => self.arrived_stamped(now, (gap.arrivals, stamps), stale_after),
        }
        self.backlog.judge(stale_after);
    }

    fn arrived_unstamped(&mut self, now: MonoTime, arrivals: u64, stale_after: u64) {
        if arrivals > stale_after {
            self.begin(now, arrivals);
        } else if now.since(self.since) > SETTLING {
            self.lag = 0;
        }
    }

    fn arrived_stamped(&mut self, now: MonoTime, (arrivals, stamps): (u64, i64), stale_after: u64) {
        let was_silent = arrivals > stale_after;
        let slack = stale_after / 4;
        let later = i64::try_from(arrivals).unwrap_or(i64::MAX) - stamps;
        let lag = self.lag.saturating_add_signed(later);
        if was_silent && later > slack.cast_signed() {
            self.begin(now, lag);
        } else if self.lag > 0 {
            self.follow(now, lag, slack);
        }
    }

    fn begin(&mut self, now: MonoTime, lag: u64) {
        (self.lag, self.since, self.then) = (lag, now, lag);
    }

    fn follow(&mut self, now: MonoTime, lag: u64, slack: u64) {
        self.lag = lag;
        if lag <= slack {
            self.lag = 0;
        } else if now.since(self.since) >= PATIENCE {
            let caught_up = self.then.saturating_sub(lag);
            if caught_up < PATIENCE / 2 {
                self.backlog.forgive(lag);
                self.begin(now, 0);
            } else {
                self.begin(now, lag);
            }
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
    struct Robot {
        lateness: Lateness,
        last: Option<(u64, i64)>,
    }

    impl Robot {
        fn new() -> Self {
            Self {
                lateness: Lateness::default(),
                last: None,
            }
        }

        fn arrives(&mut self, at: u64, stamp: Option<i64>) -> u64 {
            if let Some((before, stamped)) = self.last {
                let gap = Gap {
                    arrivals: (at - before) * MS,
                    stamps: stamp.map(|stamp| (stamp - stamped) * MS.cast_signed()),
                };
                self.lateness.arrived(MonoTime::from_nanos(at * MS), gap, STALE);
            }
            self.last = Some((at, stamp.unwrap_or(0)));
            self.lateness.lag() / MS
        }
    }

    #[test]
    fn what_waited_in_a_queue_is_as_old_as_its_stamps_say() {
        let mut robot = Robot::new();
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
        let mut robot = Robot::new();
        robot.arrives(0, Some(100));
        assert_eq!(robot.arrives(5_000, Some(5_100)), 0);
    }

    #[test]
    fn a_simulator_that_was_paused_is_believed_after_a_while() {
        let mut robot = Robot::new();
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
    fn what_was_forgiven_is_no_backlog_but_what_had_piled_up_before_is() {
        let mut robot = Robot::new();
        let mut now = 0_u64;
        // A state in ten is a millisecond later than the one before.
        for n in 0..1_000_u64 {
            now = 10 * n + n / 10;
            robot.arrives(now, Some(10 * n.cast_signed()));
        }
        let piled_up = robot.lateness.backlog().over() / MS;
        assert!((95..100).contains(&piled_up), "{piled_up} ms");
        let paused = |n: u64| (now + 5_000 + 10 * n, Some(10_000 + 10 * n.cast_signed()));
        for (at, stamp) in (0..100_u64).map(paused) {
            robot.arrives(at, stamp);
        }
        assert_eq!(robot.lateness.lag(), 0, "forgiven");
        let left = robot.lateness.backlog();
        assert!(
            !left.is_long() && left.over() / MS + 3 >= piled_up,
            "{left:?} of {piled_up} ms"
        );
    }

    #[test]
    fn a_queue_that_is_read_slowly_is_late_until_it_is_empty() {
        let mut robot = Robot::new();
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
        let mut robot = Robot::new();
        robot.arrives(0, Some(10_000));
        assert_eq!(robot.arrives(300, Some(300)), 0, "set back");
        assert_eq!(robot.arrives(310, Some(90_000)), 0, "set ahead");
    }

    #[test]
    fn a_slow_simulator_is_not_late() {
        let mut robot = Robot::new();
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
        let mut robot = Robot::new();
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
            let mut robot = Robot::new();
            for sent in (0..1_000).map(|n| n * period) {
                let arrives = if sent < 200 { sent } else { sent.max(200 + hold) };
                let lag = robot.arrives(arrives, Some(sent.cast_signed() + offset));
                let age = arrives - sent;
                prop_assert!(lag + 50 + period >= age, "{sent}: {lag} {age}");
            }
        }
    }
}
