//! What was commanded, by whom, and which ticks were missed.

use std::collections::{HashMap, VecDeque};

use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_tests::rig::{Misses, Sampler};

use super::RUN;

/// A command and its record are no further apart, ns.
const APART: u64 = 1_000_000_000;

/// Commands, records and misses of a soak.
pub struct Ledger {
    /// Commands without a record so far.
    open: VecDeque<(Vec<u64>, MonoTime)>,
    /// When a record last told of a command.
    recorded: HashMap<Vec<u64>, MonoTime>,
    tidied: Option<MonoTime>,
    acting: u64,
    published: u64,
    /// Commands received.
    pub commands: u64,
    /// Commands that no record told of.
    pub unexplained: u64,
    /// Missed ticks while a fault was injected.
    pub missed_within: u64,
    /// Others.
    pub misses: Misses,
    /// A record that no known policy made.
    pub wrong: Option<String>,
}

impl Ledger {
    /// Nothing noted yet.
    pub fn new(rate: f64) -> Self {
        Self {
            open: VecDeque::new(),
            recorded: HashMap::new(),
            tidied: None,
            acting: 1,
            published: 1,
            commands: 0,
            unexplained: 0,
            missed_within: 0,
            misses: Misses::new(rate),
            wrong: None,
        }
    }

    /// Missed ticks outside of every fault.
    pub fn missed_outside(&self) -> u64 {
        self.misses.by_machine + self.misses.by_us
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
        match self.misses.of(action, now) {
            Some(miss) if may_miss => self.missed_within += miss.ticks,
            Some(miss) => self.misses.count(miss),
            None => {}
        }
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

    /// Settles what is old enough.
    pub fn judge(&mut self, now: MonoTime, sampler: &Sampler) {
        self.misses.judge(now, sampler);
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
}

fn key(command: &[f64]) -> Vec<u64> {
    command.iter().map(|value| value.to_bits()).collect()
}
