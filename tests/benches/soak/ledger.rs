//! What was commanded, by whom, and which ticks were missed.

use mfpo_node::time::MonoTime;
use mfpo_ros::r2r::mfpo_msgs::msg::PolicyAction;
use mfpo_tests::rig::{Lineage, Misses, Named, Pairing, Sampler};

use super::RUN;

/// Commands, records and misses of a soak.
pub struct Ledger {
    /// Commands and their records.
    pub pairing: Pairing,
    lineage: Lineage,
    /// Missed ticks while a fault was injected.
    pub missed_within: u64,
    /// Others.
    pub misses: Misses,
}

impl Ledger {
    /// Nothing noted yet.
    pub fn new(rate: f64) -> Self {
        Self {
            pairing: Pairing::default(),
            lineage: Lineage::new(RUN, 1),
            missed_within: 0,
            misses: Misses::new(rate),
        }
    }

    /// Missed ticks outside of every fault.
    pub fn missed_outside(&self) -> u64 {
        self.misses.by_machine + self.misses.by_us
    }

    /// A bundle of this version is on its way.
    pub fn published(&mut self, version: u64) {
        self.lineage.published(version);
    }

    /// A record that no known policy made.
    pub fn wrong(&self) -> Option<&str> {
        self.lineage.wrong.as_deref()
    }

    /// A command has arrived.
    pub fn command(&mut self, command: &[f64], now: MonoTime) {
        self.pairing.command(command, now);
    }

    /// A record has arrived; `may_miss`: the robot's states are bad.
    pub fn record(&mut self, action: &PolicyAction, now: MonoTime, may_miss: bool) {
        self.pairing.record(&action.command, now);
        self.lineage.take(&Named::from(action));
        match self.misses.of(action, now) {
            Some(miss) if may_miss => self.missed_within += miss.ticks,
            Some(miss) => self.misses.count(miss),
            None => {}
        }
    }

    /// Settles what is old enough.
    pub fn judge(&mut self, now: MonoTime, sampler: &Sampler) {
        self.misses.judge(now, sampler);
        self.pairing.judge(now);
    }
}
