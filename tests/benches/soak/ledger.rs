//! What was commanded, by whom, and which ticks were missed.

use std::collections::{HashMap, VecDeque};

use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_ros::time;
use mfpo_tests::rig::Sampler;

use super::RUN;

const MILLISECOND: u64 = 1_000_000;
/// A command and its record are no further apart, ns.
const APART: u64 = 1_000 * MILLISECOND;
/// The sampler has noted what belongs to a miss after this time, ns.
const NOTED: u64 = 20 * MILLISECOND;
/// The system clock, which stamps are of, drifts from the monotonic one by no more than this, ns a tick.
const DRIFT: i64 = 2_000;
/// Misses that are told one by one.
const TOLD: usize = 40;

/// A tick that was missed outside of every fault.
struct Miss {
    at: MonoTime,
    sequence: u64,
    ticks: u64,
    late_ms: f64,
}

/// Commands, records and misses of a soak.
pub struct Ledger {
    period: i64,
    /// Commands without a record so far.
    open: VecDeque<(Vec<u64>, MonoTime)>,
    /// When a record last told of a command.
    recorded: HashMap<Vec<u64>, MonoTime>,
    tidied: Option<MonoTime>,
    last: Option<u64>,
    /// Stamp of an on-time tick of number 0, ns.
    base: Option<i64>,
    acting: u64,
    published: u64,
    misses: Vec<Miss>,
    /// Commands received.
    pub commands: u64,
    /// Commands that no record told of.
    pub unexplained: u64,
    /// Missed ticks while a fault was injected.
    pub missed_within: u64,
    /// Others, of which the machine's own record tells.
    pub missed_by_machine: u64,
    /// Others.
    pub missed_by_us: u64,
    /// What is known of them.
    pub told: Vec<String>,
    /// A record that no known policy made.
    pub wrong: Option<String>,
}

impl Ledger {
    /// Nothing noted yet.
    pub fn new(rate: f64) -> Self {
        Self {
            period: (1e9 / rate) as i64,
            open: VecDeque::new(),
            recorded: HashMap::new(),
            tidied: None,
            last: None,
            base: None,
            acting: 1,
            published: 1,
            misses: Vec::new(),
            commands: 0,
            unexplained: 0,
            missed_within: 0,
            missed_by_machine: 0,
            missed_by_us: 0,
            told: Vec::new(),
            wrong: None,
        }
    }

    /// Missed ticks outside of every fault.
    pub fn missed_outside(&self) -> u64 {
        self.missed_by_machine + self.missed_by_us
    }

    /// A bundle of this version is on its way.
    pub fn published(&mut self, version: u64) {
        self.published = version;
    }

    /// A command has arrived.
    pub fn command(&mut self, command: &[f64], now: MonoTime) {
        self.commands += 1;
        self.open.push_back((key(command), now));
    }

    /// A record has arrived; `may_miss`: the robot's states are bad.
    pub fn record(&mut self, action: &PolicyAction, now: MonoTime, may_miss: bool) {
        self.recorded.insert(key(&action.command), now);
        self.check_identity(action);
        let skipped = self
            .last
            .map_or(0, |last| action.sequence.saturating_sub(last + 1));
        self.last = Some(action.sequence);
        let late = self.lateness(action);
        let missed = skipped + u64::from(action.fallback || late > self.period);
        if missed == 0 {
            return;
        }
        if may_miss {
            self.missed_within += missed;
            return;
        }
        self.misses.push(Miss {
            at: now,
            sequence: action.sequence,
            ticks: missed,
            late_ms: 1e-6 * (late as f64).max((skipped as i64 * self.period) as f64),
        });
    }

    fn check_identity(&mut self, action: &PolicyAction) {
        let is_known = action.run == RUN && (self.acting..=self.published).contains(&action.version);
        if !is_known && self.wrong.is_none() {
            self.wrong = Some(format!(
                "record {} names run '{}' version {}; expected run '{RUN}' version {} to {}",
                action.sequence, action.run, action.version, self.acting, self.published
            ));
        }
        self.acting = self.acting.max(action.version);
    }

    /// By how much the command of a tick was later than that of the ticks before, ns.
    fn lateness(&mut self, action: &PolicyAction) -> i64 {
        let offset = time::nanoseconds(&action.stamp) - action.sequence as i64 * self.period;
        let base = self.base.map_or(offset, |base| offset.min(base + DRIFT));
        self.base = Some(base);
        offset - base
    }

    /// Settles what is old enough.
    pub fn judge(&mut self, now: MonoTime, sampler: &Sampler) {
        let (ready, wait) = std::mem::take(&mut self.misses)
            .into_iter()
            .partition(|miss: &Miss| now.since(miss.at) > NOTED);
        self.misses = wait;
        for miss in ready {
            self.blame(&miss, sampler);
        }
        while let Some((command, at)) = self.open.front() {
            if self
                .recorded
                .get(command)
                .is_some_and(|told| at.since(*told) < APART)
            {
                self.open.pop_front();
            } else if now.since(*at) > APART {
                self.unexplained += 1;
                self.open.pop_front();
            } else {
                break;
            }
        }
        if now.since(*self.tidied.get_or_insert(now)) > APART {
            self.tidied = Some(now);
            self.recorded.retain(|_, told| now.since(*told) < 3 * APART);
        }
    }

    fn blame(&mut self, miss: &Miss, sampler: &Sampler) {
        let began = miss.at.minus((1e6 * miss.late_ms) as u64 + 8 * MILLISECOND);
        let evidence = sampler.since(began);
        let is_machine = evidence.explains(miss.late_ms);
        let whose = if is_machine {
            self.missed_by_machine += miss.ticks;
            "the machine's"
        } else {
            self.missed_by_us += miss.ticks;
            "ours"
        };
        if self.told.len() < TOLD {
            self.told.push(format!(
                "tick {}: {} missed, {:.2} ms late, {whose}: {evidence}",
                miss.sequence, miss.ticks, miss.late_ms
            ));
        }
    }
}

fn key(command: &[f64]) -> Vec<u64> {
    command.iter().map(|value| value.to_bits()).collect()
}
