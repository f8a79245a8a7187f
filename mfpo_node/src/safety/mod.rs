//! What stands between a policy and a motor. Only this module makes a [`SafeCommand`], and `ros.rs` publishes
//! nothing else, so that a command which passed no limit does not compile.

pub mod description;
pub mod enable;
pub mod fade;
pub mod fallback;
pub mod guard;
pub mod limits;
pub mod recovery;
pub mod watchdog;

pub use description::{BadDescription, NoRoom, RobotDescription};
pub use enable::{Enable, NotEnabled};
pub use fade::Fade;
pub use fallback::{Fallback, FallbackChoice};
pub use guard::{Guard, Unknown};
pub use limits::{Limits, Outside, Rule, SafetyFilter, Tightening, TooTight};
pub use recovery::Recovery;
pub use watchdog::{Verdict, Watchdog};

/// A command that every limit has seen, in the order of the policy's action joints, in the interface's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct SafeCommand {
    values: Vec<f64>,
    rules: Vec<Option<Rule>>,
}

impl SafeCommand {
    /// The command of each action joint.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The rule that altered the command of each action joint, where one did.
    pub fn rules(&self) -> &[Option<Rule>] {
        &self.rules
    }

    /// Joints whose command a limit has altered.
    pub fn interventions(&self) -> u32 {
        self.rules.iter().map(|rule| u32::from(rule.is_some())).sum()
    }
}
