//! What stands between a policy and a motor. Only this module makes a [`SafeCommand`], and `ros.rs` publishes
//! nothing else, so that a command which passed no limit does not compile.

pub mod fallback;
pub mod limits;
pub mod watchdog;

pub use fallback::{Fallback, FallbackChoice};
pub use limits::SafetyFilter;
pub use watchdog::{Verdict, Watchdog};

/// A command that every limit has seen, in the order of the policy's action joints, in the interface's unit.
#[derive(Debug, Clone, PartialEq)]
pub struct SafeCommand {
    values: Vec<f64>,
    interventions: u32,
}

impl SafeCommand {
    /// The command of each action joint.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Joints whose command a limit has altered.
    pub fn interventions(&self) -> u32 {
        self.interventions
    }
}
