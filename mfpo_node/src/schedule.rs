//! When to tick.
//!
//! Deadlines lie on an unbroken absolute schedule `first + k * period`; nothing that happens in between moves them
//! or takes one away. The schedule starts with the first command: before a policy is live and every joint has
//! reported, there is nothing to be late for.
//!
//! A missed tick is a deadline whose command reached rmw more than one period late, or never. Skipped, stalled and
//! fallback ticks count.
//!
//! - [`Trigger::FixedRate`] ticks at each deadline, with the newest state.
//! - [`Trigger::OnState`] ticks when every joint has reported anew, at the arrival that is nearest to the deadline:
//!   a robot may publish faster than the policy runs (the rest is left out), or at the policy's rate with jitter
//!   (then each state gives one tick). Where no arrival comes, the newest states serve at three quarters of a period
//!   after the deadline, or the fallback when they are stale. Two clocks never run equally fast, so that the
//!   schedule follows the robot's clock by at most 1/512 of a period at each tick (0.2 %).

use crate::time::MonoTime;

/// On-state: this part of a period after a deadline the tick no longer waits for a state.
const GRACE: f64 = 0.75;
/// On-state: the largest part of a period by which one tick moves the schedule is `1 / FOLLOW`.
const FOLLOW: i64 = 512;
/// On-state: the weight of the newest interval between states is `1 / SMOOTH`.
const SMOOTH: i64 = 8;

/// Where a wait takes that long, ns, nothing was there when it began: a message that is there is taken in less, unless the
/// thread has lost its processor meanwhile, and then the message was held up.
const NOTHING_WAITED: u64 = 200_000;

/// What makes the loop tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Each deadline, with the newest state.
    FixedRate,
    /// Arriving states.
    OnState,
}

impl Trigger {
    /// The names of the parameter's values.
    pub const NAMES: [&'static str; 2] = ["fixed_rate", "on_state"];

    /// The trigger of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "fixed_rate" => Some(Self::FixedRate),
            "on_state" => Some(Self::OnState),
            _ => None,
        }
    }

    /// Where a tick at `now` begins: on-state where the states that ask for it were `taken`, if it was they that woke the
    /// loop; what else the loop took in meanwhile is then part of the tick.
    pub fn begins(self, taken: Option<MonoTime>, now: MonoTime) -> MonoTime {
        match self {
            Self::FixedRate => now,
            Self::OnState => taken.unwrap_or(now),
        }
    }
}

/// A deadline that is being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Its number, from 0.
    pub index: u64,
    /// When it was due.
    pub at: MonoTime,
    /// Deadlines before it that no tick will serve any more.
    pub skipped: u64,
    period: u64,
}

impl Deadline {
    /// Missed ticks once the command is with rmw: the skipped ones, and this one when it is a fallback or more
    /// than one period late.
    pub fn missed(&self, handed_over: MonoTime, fallback: bool) -> u64 {
        self.skipped + u64::from(fallback || handed_over.since(self.at) > self.period)
    }

    /// Missed ticks when no command came of it.
    pub fn missed_without_command(&self) -> u64 {
        self.skipped + 1
    }
}

/// The schedule of the control loop.
#[derive(Debug)]
pub struct Schedule {
    trigger: Trigger,
    period: u64,
    /// The deadline that is served next, and its number.
    next: Option<(MonoTime, u64)>,
    last_arrival: Option<MonoTime>,
    /// Smoothed interval between complete states, ns.
    arrival_interval: i64,
}

impl Schedule {
    /// A schedule that has not started.
    pub fn new(trigger: Trigger, period: u64) -> Self {
        Self {
            trigger,
            period: period.max(1),
            next: None,
            last_arrival: None,
            arrival_interval: period as i64,
        }
    }

    /// Has a first deadline been served?
    pub fn is_running(&self) -> bool {
        self.next.is_some()
    }

    /// The first command is being sent: deadline 0 is now.
    fn start(&mut self, now: MonoTime) -> Deadline {
        self.next = Some((now, 0));
        self.take(now)
    }

    /// When the loop has to look at the schedule even if no state arrives.
    pub fn wake_at(&self) -> Option<MonoTime> {
        let (next, _) = self.next?;
        Some(match self.trigger {
            Trigger::FixedRate => next,
            Trigger::OnState => next.plus((GRACE * self.period as f64) as u64),
        })
    }

    /// Every joint has reported anew.
    pub fn state_arrived(&mut self, now: MonoTime) {
        if let Some(last) = self.last_arrival {
            let interval = now.signed_since(last).min(self.period as i64);
            self.arrival_interval += (interval - self.arrival_interval) / SMOOTH;
        }
        self.last_arrival = Some(now);
    }

    /// Can no newer state be there than the one that a wait of `waited` ns has brought, `held_up` by so many ns? The wait began
    /// with nothing there, and it is too early for the next one.
    pub fn is_newest(&self, waited: u64, held_up: u64) -> bool {
        waited >= NOTHING_WAITED && held_up < self.arrival_interval.unsigned_abs() / 2
    }

    /// Is it time to tick? `complete`: every joint has reported since the last tick.
    pub fn is_due(&self, now: MonoTime, complete: bool) -> bool {
        let Some((next, _)) = self.next else {
            return complete;
        };
        match self.trigger {
            Trigger::FixedRate => now >= next,
            Trigger::OnState => {
                let early = next.minus((self.arrival_interval / 2).unsigned_abs());
                (complete && now >= early) || self.wake_at().is_some_and(|at| now >= at)
            }
        }
    }

    /// The deadline that a tick at `now` serves; the first one starts the schedule. `arrived`: a complete state made
    /// it tick.
    pub fn serve(&mut self, now: MonoTime, arrived: bool) -> Deadline {
        if !self.is_running() {
            return self.start(now);
        }
        let deadline = self.take(now);
        if arrived {
            self.follow(now, &deadline);
        }
        deadline
    }

    /// The deadline that a tick at `now` serves: the next one, or the newest that has passed.
    fn take(&mut self, now: MonoTime) -> Deadline {
        let (next, index) = self.next.unwrap_or((now, 0));
        let skipped = now.since(next) / self.period;
        let at = next.plus(skipped * self.period);
        let deadline = Deadline {
            index: index + skipped,
            at,
            skipped,
            period: self.period,
        };
        self.next = Some((at.plus(self.period), deadline.index + 1));
        deadline
    }

    /// On-state: moves the deadlines to come a little towards the arrival that `served` was served by.
    fn follow(&mut self, arrival: MonoTime, served: &Deadline) {
        let limit = self.period as i64 / FOLLOW;
        let error = arrival.signed_since(served.at) / 16;
        if let (Trigger::OnState, Some((next, _))) = (self.trigger, self.next.as_mut()) {
            *next = next.shifted(error.clamp(-limit, limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: f64) -> MonoTime {
        MonoTime::from_nanos(1_000 * MS + (ms * MS as f64) as u64)
    }

    /// Ticks of an on-state schedule (20 ms) for complete states that arrive at these times, ms.
    fn on_state_ticks(arrivals: impl IntoIterator<Item = f64>) -> (Vec<f64>, u64) {
        let mut schedule = Schedule::new(Trigger::OnState, 20 * MS);
        let (mut ticks, mut missed) = (Vec::new(), 0);
        for arrival in arrivals {
            let now = at(arrival);
            schedule.state_arrived(now);
            if !schedule.is_due(now, true) {
                continue;
            }
            let deadline = schedule.serve(now, true);
            missed += deadline.missed(now, false);
            ticks.push(arrival);
        }
        (ticks, missed)
    }

    #[test]
    fn a_tick_on_state_begins_where_its_state_was_taken_and_any_other_where_it_is_due() {
        let (taken, now) = (Some(at(20.0)), at(20.1));
        assert_eq!(Trigger::OnState.begins(taken, now), at(20.0));
        assert_eq!(Trigger::OnState.begins(None, now), now, "no state came");
        assert_eq!(Trigger::FixedRate.begins(taken, now), now);
    }

    #[test]
    fn no_newer_state_is_there_only_where_one_was_waited_for_and_came_in_time() {
        let mut schedule = Schedule::new(Trigger::OnState, 20 * MS);
        assert!(schedule.is_newest(MS, 9 * MS), "half a period is not over");
        assert!(!schedule.is_newest(MS, 10 * MS), "the next one may be there");
        assert!(!schedule.is_newest(MS / 10, 0), "it may have been there before");
        // A robot that reports every 2 ms: the next one is there much sooner.
        for i in 0..100 {
            schedule.state_arrived(at(2.0 * f64::from(i)));
        }
        assert!(schedule.is_newest(MS, MS / 2));
        assert!(!schedule.is_newest(MS, 2 * MS));
        assert!(!schedule.is_newest(0, 0));
    }

    #[test]
    fn deadlines_do_not_move_when_a_tick_is_late() {
        let mut schedule = Schedule::new(Trigger::FixedRate, 10 * MS);
        schedule.start(at(0.0));
        assert_eq!(schedule.take(at(19.0)).at, at(10.0));
        assert_eq!(schedule.wake_at(), Some(at(20.0)));
    }

    #[test]
    fn a_deadline_is_missed_when_its_command_is_more_than_one_period_late() {
        let mut schedule = Schedule::new(Trigger::FixedRate, 10 * MS);
        let first = schedule.start(at(0.0));
        assert_eq!(first.missed(at(10.0), false), 0);
        assert_eq!(first.missed(at(10.1), false), 1);
    }

    #[test]
    fn skipped_stalled_and_fallback_ticks_each_count_once() {
        let mut schedule = Schedule::new(Trigger::FixedRate, 10 * MS);
        schedule.start(at(0.0));
        // Deadlines 10, 20 and 30 are over; 40 is served, 5 ms late.
        let late = schedule.take(at(45.0));
        assert_eq!((late.index, late.skipped, late.at), (4, 3, at(40.0)));
        assert_eq!(late.missed(at(45.1), false), 3);
        assert_eq!(late.missed(at(45.1), true), 4);
        assert_eq!(late.missed_without_command(), 4);
        let next = schedule.take(at(50.0));
        assert_eq!((next.index, next.missed(at(50.1), false)), (5, 0));
    }

    #[test]
    fn nothing_is_due_by_time_before_the_first_command() {
        let schedule = Schedule::new(Trigger::FixedRate, 10 * MS);
        assert!(schedule.wake_at().is_none());
        assert!(!schedule.is_due(at(1e6), false));
        assert!(schedule.is_due(at(0.0), true));
    }

    #[test]
    fn states_at_the_policys_rate_give_one_tick_each_whatever_their_jitter() {
        let jitter = [0.0, 4.0, -4.0, 3.0, 0.5, -3.5, 4.5, -4.5];
        let arrivals: Vec<f64> = (0..2000).map(|k| 20.0 * k as f64 + jitter[k % 8]).collect();
        let (ticks, missed) = on_state_ticks(arrivals.iter().copied());
        assert_eq!((ticks.len(), missed), (2000, 0));
    }

    #[test]
    fn faster_states_are_decimated_to_the_policys_rate() {
        let (ticks, missed) = on_state_ticks((0..5000).map(|k| 4.0 * k as f64));
        assert_eq!((ticks.len(), missed), (1000, 0));
        // The interval between states is learnt during the first few.
        assert!(
            ticks[10..].windows(2).all(|pair| pair[1] - pair[0] == 20.0),
            "{:?}",
            &ticks[..20]
        );
        let (ticks, missed) = on_state_ticks((0..5000).map(|k| 8.0 * k as f64));
        assert_eq!((ticks.len(), missed), (2000, 0));
    }

    #[test]
    fn the_schedule_follows_a_robot_whose_clock_runs_differently() {
        for drift in [0.999, 1.001] {
            let (ticks, missed) = on_state_ticks((0..20_000).map(|k| 20.0 * drift * k as f64));
            assert_eq!((ticks.len(), missed), (20_000, 0), "drift {drift}");
        }
    }

    #[test]
    fn states_that_stop_still_give_a_tick_within_the_period() {
        let mut schedule = Schedule::new(Trigger::OnState, 20 * MS);
        schedule.start(at(0.0));
        assert_eq!(schedule.wake_at(), Some(at(35.0)));
        assert!(!schedule.is_due(at(34.9), false));
        assert!(schedule.is_due(at(35.0), false));
        assert_eq!(schedule.take(at(35.0)).missed(at(35.1), false), 0);
    }
}
