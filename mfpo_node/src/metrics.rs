//! Figures of the control loop. The loop only adds to atomics ([`Live`]) and pushes small records into a ring;
//! percentiles and text are made elsewhere ([`Figures`], on the thread that publishes the status).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use hdrhistogram::Histogram;

use mfpo_policy::guard::{Signal, Signals};
use mfpo_policy::sampler::Depth;

use crate::arrivals::Arrivals;
use crate::safety::{Rule, SafeCommand};
use crate::time::MonoTime;

/// What the node is doing; the numbers are those of `mfpo_msgs/PolicyStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LoopState {
    /// No bundle was accepted yet; nothing is commanded.
    WaitingForPolicy = 0,
    /// Some joint has not reported; nothing is commanded.
    WaitingForStates = 1,
    /// The policy commands the robot.
    Active = 2,
    /// The watchdog commands the robot.
    Fallback = 3,
    /// The node has ended; where it commanded, the last safe command has been sent.
    Stopped = 4,
    /// The life cycle is not active; nothing is commanded.
    Inactive = 5,
    /// The life cycle is inactive; single joints are probed.
    Probing = 6,
}

impl LoopState {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::WaitingForStates,
            2 => Self::Active,
            3 => Self::Fallback,
            4 => Self::Stopped,
            5 => Self::Inactive,
            6 => Self::Probing,
            _ => Self::WaitingForPolicy,
        }
    }
}

/// What the control loop tells the world, without a lock: written by the loop, read by the status.
#[derive(Debug, Default)]
pub struct Live {
    state: AtomicU8,
    /// Deadlines since the first command.
    pub ticks: AtomicU64,
    /// Deadlines whose command was more than one period late, or never sent.
    pub missed_ticks: AtomicU64,
    /// Ticks that the watchdog commanded.
    pub fallback_ticks: AtomicU64,
    /// Times that the watchdog took over from the policy.
    pub fallbacks: AtomicU64,
    /// Commands that a limit altered.
    pub interventions: AtomicU64,
    /// Policies that went live in place of another.
    pub swaps: AtomicU64,
    /// Policies that were not let through a stage of their swap.
    pub swap_returns: AtomicU64,
    /// Times that the policy before took the place of the one that acted.
    pub rollbacks: AtomicU64,
    /// Joint states refused.
    pub refused_states: AtomicU64,
    /// Records that found the ring full: the percentiles lack them.
    pub lost_records: AtomicU64,
    /// When every joint had reported anew.
    pub(crate) rounds: Arrivals,
    /// The longest time between two of them since it was last asked for, ns.
    longest_gap: AtomicU64,
    /// What the guard judged last, signal by signal: the complement of the value's bits, 0 where it judges none.
    guard_signals: [AtomicU64; Signal::ALL.len()],
    /// Arrival of each joint's newest position, ns of the monotonic clock; 0 where none came.
    received: Vec<AtomicU64>,
    /// By how much longer than at best the newest state of the slowest joint took, ns.
    backlog: AtomicU64,
    /// Heartbeats, and whether the newest one permits motion.
    pub(crate) heartbeats: Arrivals,
    permits: AtomicBool,
    /// The goal, m, as bits; meaningless without `has_goal`.
    goal: [AtomicU64; 3],
    has_goal: AtomicBool,
    /// Goals that were taken over; they begin anew where one was forgotten.
    pub(crate) goals: Arrivals,
    /// Commands that a rule altered: rule r of commanded joint j is at `j * Rule::NAMES.len() + r`.
    by_rule: Vec<AtomicU64>,
}

impl Live {
    /// Everything at zero, for a policy with that many joints.
    pub fn new(joints: usize) -> Self {
        Self {
            received: (0..joints).map(|_| AtomicU64::new(0)).collect(),
            ..Self::default()
        }
    }

    /// [`Live::new`] with room for the interventions on so many commanded joints.
    pub fn with_commanded(joints: usize, commanded: usize) -> Self {
        let counters = commanded * Rule::NAMES.len();
        Self {
            by_rule: (0..counters).map(|_| AtomicU64::new(0)).collect(),
            ..Self::new(joints)
        }
    }

    /// Counts the rules that altered a command.
    pub fn count_interventions(&self, command: &SafeCommand) {
        for (joint, rule) in command.rules().iter().enumerate() {
            let counter = rule.and_then(|rule| self.by_rule.get(joint * Rule::NAMES.len() + rule as usize));
            if let Some(counter) = counter {
                add(counter, 1);
            }
        }
        add(&self.interventions, u64::from(command.interventions() > 0));
    }

    /// Interventions by joint and rule: rule r of commanded joint j is at `j * Rule::NAMES.len() + r`.
    pub fn interventions_by_rule(&self) -> Vec<u64> {
        self.by_rule.iter().map(read).collect()
    }

    /// Sets what the guard judged in a tick.
    pub fn set_guard_signals(&self, signals: &Signals) {
        for (slot, signal) in self.guard_signals.iter().zip(Signal::ALL) {
            let bits = signals.get(signal).map_or(0, |value| !value.to_bits());
            slot.store(bits, Ordering::Relaxed);
        }
    }

    /// What the guard judged last. A reader in between may see signals of two ticks.
    pub fn guard_signals(&self) -> Signals {
        let [disagreement, spread, value] = self.guard_signals.each_ref().map(|slot| {
            let bits = slot.load(Ordering::Relaxed);
            (bits != 0).then(|| f64::from_bits(!bits))
        });
        Signals {
            disagreement,
            spread,
            value,
        }
    }

    /// What the node is doing.
    pub fn state(&self) -> LoopState {
        LoopState::from_number(self.state.load(Ordering::Relaxed))
    }

    /// Sets what the node is doing.
    pub fn set_state(&self, state: LoopState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Notes the goal, m, and when it came; only the control thread does. A reader in between may see coordinates of two goals.
    pub fn set_goal(&self, goal: Option<([f64; 3], MonoTime)>) {
        match goal {
            Some((position, now)) => {
                for (slot, coordinate) in self.goal.iter().zip(position) {
                    slot.store(coordinate.to_bits(), Ordering::Relaxed);
                }
                self.goals.note(now);
            }
            None => self.goals.begin_anew(),
        }
        self.has_goal.store(goal.is_some(), Ordering::Relaxed);
    }

    /// Age of the goal, s, where there is one.
    pub fn goal_age(&self, now: MonoTime) -> Option<f64> {
        self.goal()
            .and_then(|_| self.goals.newest())
            .map(|at| age(at, now))
    }

    /// Notes a heartbeat; only the control thread does.
    pub fn set_heartbeat(&self, permits: bool, now: MonoTime) {
        self.permits.store(permits, Ordering::Relaxed);
        self.heartbeats.note(now);
    }

    /// Whether the newest heartbeat permits motion, and its age, s; `None` where none came.
    pub fn heartbeat(&self, now: MonoTime) -> Option<(bool, f64)> {
        let at = self.heartbeats.newest()?;
        Some((self.permits.load(Ordering::Relaxed), age(at, now)))
    }

    /// Notes by how much longer than at best the newest state of the slowest joint took, ns.
    pub fn set_backlog(&self, backlog: u64) {
        self.backlog.store(backlog, Ordering::Relaxed);
    }

    /// The same, s.
    pub fn backlog(&self) -> f64 {
        read(&self.backlog) as f64 * 1e-9
    }

    /// The goal, m, where there is one.
    pub fn goal(&self) -> Option<[f64; 3]> {
        let coordinate = |slot: &AtomicU64| f64::from_bits(slot.load(Ordering::Relaxed));
        let [x, y, z] = &self.goal;
        self.has_goal
            .load(Ordering::Relaxed)
            .then(|| [coordinate(x), coordinate(y), coordinate(z)])
    }

    /// Notes the arrival of a joint's position.
    pub fn set_received(&self, joint: usize, received: Option<MonoTime>) {
        if let Some(slot) = self.received.get(joint) {
            slot.store(received.map_or(0, MonoTime::nanos), Ordering::Relaxed);
        }
    }

    /// Notes that every joint has reported anew; only the control thread does.
    pub fn note_round(&self, now: MonoTime) {
        if let Some(last) = self.rounds.newest() {
            self.longest_gap.fetch_max(now.since(last), Ordering::Relaxed);
        }
        self.rounds.note(now);
    }

    /// Age of each joint's newest position, s; infinite where none came.
    pub fn joint_ages(&self, now: MonoTime) -> Vec<f64> {
        let age = |received: &AtomicU64| match read(received) {
            0 => f64::INFINITY,
            nanoseconds => age(MonoTime::from_nanos(nanoseconds), now),
        };
        self.received.iter().map(age).collect()
    }
}

/// Age of what arrived then, s.
fn age(at: MonoTime, now: MonoTime) -> f64 {
    now.since(at) as f64 * 1e-9
}

/// Adds to a counter that one thread writes.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Reads a counter.
pub fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How regularly every joint has reported, from one look to the next.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rounds {
    /// Times a second that every joint has reported anew.
    pub rate: f64,
    /// The longest time without, that which lasts now included, s.
    pub longest_gap: f64,
    seen: u64,
    at: Option<MonoTime>,
}

impl Rounds {
    /// Looks again.
    pub fn look(&mut self, live: &Live, now: MonoTime) {
        let seen = live.rounds.count();
        let elapsed = self.at.map_or(0, |at| now.since(at)) as f64 * 1e-9;
        // Another robot begins at zero.
        let new = seen.saturating_sub(self.seen) as f64;
        self.rate = if elapsed > 0.0 { new / elapsed } else { 0.0 };
        let lasting = live.rounds.newest().map_or(0, |last| now.since(last));
        let longest = live.longest_gap.swap(0, Ordering::Relaxed).max(lasting);
        self.longest_gap = longest as f64 * 1e-9;
        (self.seen, self.at) = (seen, Some(now));
    }
}

/// What one tick took.
#[derive(Debug, Clone, Copy)]
pub struct TickRecord {
    /// When the states were taken.
    pub taken: MonoTime,
    /// When the command was with rmw.
    pub handed_over: MonoTime,
    /// State taken -> command handed to rmw, ns.
    pub latency: u64,
    /// How far the policy was sampled, where it was asked.
    pub depth: Option<Depth>,
}

/// Average, spread and extremes of what was added, in one pass (Welford).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Moments {
    /// Takes one value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        let is_first = self.count == 1;
        self.min = if is_first { value } else { self.min.min(value) };
        self.max = if is_first { value } else { self.max.max(value) };
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their average.
    pub fn average(&self) -> f64 {
        self.mean
    }

    /// Their standard deviation.
    pub fn standard_deviation(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.max
    }
}

/// How regularly the loop ticked and how long a tick took, over the last full second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Regularity {
    /// One over the time between two ticks, Hz.
    pub periodicity: Moments,
    /// State taken -> command handed to rmw, us.
    pub execution: Moments,
    /// Sampling steps of an action.
    pub steps: Moments,
    /// Actions sampled for one.
    pub candidates: Moments,
}

/// Percentiles of the last second, and the largest value since the start. Its memory is fixed.
pub struct Figures {
    window: Histogram<u64>,
    window_start: Option<MonoTime>,
    last_taken: Option<MonoTime>,
    current: Regularity,
    complete: Regularity,
    shown: Shown,
}

/// Figures to show.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shown {
    /// Ticks a second over the last full second, Hz.
    pub tick_rate: f64,
    /// Median latency of the last full second, s.
    pub latency_p50: f64,
    /// 99th percentile of the last full second, s.
    pub latency_p99: f64,
    /// The largest latency since the start, s.
    pub latency_max: f64,
    /// Sampling steps of an action, mean of the last full second.
    pub steps: f64,
    /// Actions sampled for one, mean of the last full second.
    pub candidates: f64,
}

const SECOND: u64 = 1_000_000_000;
const LARGEST: u64 = 60 * SECOND;
/// Ticks that are further apart belong to two activations, ns.
const LONGEST_PAUSE: u64 = 2 * SECOND;

impl Default for Figures {
    fn default() -> Self {
        Self::new()
    }
}

impl Figures {
    /// Nothing recorded yet.
    pub fn new() -> Self {
        Self {
            window: latencies(),
            window_start: None,
            last_taken: None,
            current: Regularity::default(),
            complete: Regularity::default(),
            shown: Shown::default(),
        }
    }

    /// Takes one record; a full second's worth becomes the figures to show.
    pub fn record(&mut self, record: TickRecord) {
        let start = *self.window_start.get_or_insert(record.handed_over);
        let elapsed = record.handed_over.since(start);
        if elapsed >= SECOND {
            self.shown.tick_rate = self.window.len() as f64 / (elapsed as f64 * 1e-9);
            self.shown.latency_p50 = self.window.value_at_quantile(0.50) as f64 * 1e-9;
            self.shown.latency_p99 = self.window.value_at_quantile(0.99) as f64 * 1e-9;
            self.window.reset();
            self.window_start = Some(record.handed_over);
            self.complete = std::mem::take(&mut self.current);
            self.shown.steps = self.complete.steps.average();
            self.shown.candidates = self.complete.candidates.average();
        }
        let previous = self.last_taken.replace(record.taken);
        let between = previous.map(|previous| record.taken.since(previous));
        if let Some(between) = between.filter(|between| (1..LONGEST_PAUSE).contains(between)) {
            self.current.periodicity.add(1e9 / between as f64);
        }
        self.current.execution.add(record.latency as f64 * 1e-3);
        if let Some(depth) = record.depth {
            self.current.steps.add(depth.steps as f64);
            self.current.candidates.add(depth.candidates as f64);
        }
        self.window.saturating_record(record.latency);
        self.shown.latency_max = self.shown.latency_max.max(record.latency as f64 * 1e-9);
    }

    /// How regular the last full second was; nothing when nothing has ticked for two seconds.
    pub fn regularity(&self, now: MonoTime) -> Option<Regularity> {
        let is_known = self.complete.periodicity.count() > 0 && !self.is_silent(now);
        is_known.then_some(self.complete)
    }

    fn is_silent(&self, now: MonoTime) -> bool {
        self.window_start
            .is_none_or(|start| now.since(start) > 2 * SECOND)
    }

    /// The figures, with the rate at 0 when nothing has ticked for two seconds.
    pub fn shown(&self, now: MonoTime) -> Shown {
        Shown {
            tick_rate: if self.is_silent(now) {
                0.0
            } else {
                self.shown.tick_rate
            },
            ..self.shown
        }
    }
}

/// A histogram from 1 ns to 60 s with three significant digits.
pub fn latencies() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LARGEST, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the constant bounds are valid: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rate_are_those_of_the_last_full_second() {
        let mut figures = Figures::new();
        for k in 0..=200u64 {
            let handed_over = MonoTime::from_nanos(SECOND + k * 10_000_000);
            figures.record(TickRecord {
                taken: handed_over,
                handed_over,
                latency: if k % 50 == 0 { 1_000_000 } else { 50_000 },
                depth: (k % 4 != 0).then_some(Depth {
                    steps: 2,
                    candidates: 1 + (k % 4) as usize,
                    in_stages: false,
                }),
            });
        }
        let shown = figures.shown(MonoTime::from_nanos(3 * SECOND));
        assert!((shown.tick_rate - 100.0).abs() < 1e-6, "{shown:?}");
        assert!((shown.latency_p50 - 50e-6).abs() < 1e-7, "{shown:?}");
        assert!((shown.latency_p99 - 1e-3).abs() < 1e-5, "{shown:?}");
        assert_eq!(shown.latency_max, 1e-3);
        // 2, 3 and 4 candidates in turn; ticks without any do not count.
        assert_eq!((shown.steps, shown.candidates), (2.0, 3.0));
        let now = MonoTime::from_nanos(3 * SECOND);
        let regularity = figures.regularity(now).expect("a full second");
        let (period, execution) = (regularity.periodicity, regularity.execution);
        assert!((period.average() - 100.0).abs() < 1e-6 && period.standard_deviation() < 1e-6);
        assert_eq!((execution.min(), execution.max()), (50.0, 1000.0));
        assert!(figures.regularity(MonoTime::from_nanos(9 * SECOND)).is_none());
    }

    #[test]
    fn moments_are_those_of_the_values() {
        let mut moments = Moments::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]
            .into_iter()
            .for_each(|v| moments.add(v));
        assert_eq!((moments.average(), moments.standard_deviation()), (5.0, 2.0));
        assert_eq!((moments.min(), moments.max(), moments.count()), (2.0, 9.0, 8));
    }

    #[test]
    fn rounds_have_a_rate_and_a_longest_gap_from_look_to_look() {
        let (live, mut rounds) = (Live::new(1), Rounds::default());
        let at = |ms: u64| MonoTime::from_nanos(SECOND + ms * 1_000_000);
        let are = |rounds: &Rounds, rate: f64, gap: f64| {
            (rounds.rate - rate).abs() < 1e-9 && (rounds.longest_gap - gap).abs() < 1e-9
        };
        rounds.look(&live, at(0));
        assert!(are(&rounds, 0.0, 0.0), "nothing has come yet: {rounds:?}");
        [100, 200, 500, 600]
            .into_iter()
            .for_each(|ms| live.note_round(at(ms)));
        rounds.look(&live, at(1000));
        assert!(are(&rounds, 4.0, 0.4), "the silence lasts: {rounds:?}");
        [1100, 1200].into_iter().for_each(|ms| live.note_round(at(ms)));
        rounds.look(&live, at(1250));
        assert!(are(&rounds, 8.0, 0.5), "it ended in this time: {rounds:?}");
        rounds.look(&Live::new(1), at(2250));
        assert!(are(&rounds, 0.0, 0.0), "another robot: {rounds:?}");
    }

    #[test]
    fn a_joint_that_never_reported_is_infinitely_old() {
        let live = Live::new(2);
        live.set_received(1, Some(MonoTime::from_nanos(SECOND)));
        let ages = live.joint_ages(MonoTime::from_nanos(2 * SECOND));
        assert_eq!(ages, vec![f64::INFINITY, 1.0]);
    }
}
