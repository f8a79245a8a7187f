//! Parameters of the node, as the values that they say: [`declared()`] declares them with default, description, range
//! and check, [`Config::read`] reads them, and [`trusted_keys`] the files that one of them names.

mod checks;
mod declared;
mod doubts;
mod read;

use std::path::PathBuf;

use crate::control_loop::Settings;
use crate::diagnostics::Thresholds;
use crate::probe::ProbeSettings;
use crate::realtime::Realtime;
use crate::recording;
use crate::schedule::Trigger;

pub use declared::declared;
pub use read::trusted_keys;

/// How commands are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandTopic {
    /// `std_msgs/Float64MultiArray`, as ros2_control's forward command controllers read it.
    Float64MultiArray,
    /// `trajectory_msgs/JointTrajectory` with one point.
    JointTrajectory,
}

impl CommandTopic {
    const NAMES: [&'static str; 2] = ["float64_multi_array", "joint_trajectory"];

    /// The type of its messages, as ROS 2 names it.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Float64MultiArray => "std_msgs/msg/Float64MultiArray",
            Self::JointTrajectory => "trajectory_msgs/msg/JointTrajectory",
        }
    }
}

/// Everything that the parameters say.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Bundle to start with; without one the node waits for the topic.
    pub policy: Option<PathBuf>,
    /// Folder whose newest bundle goes live.
    pub policy_folder: Option<PathBuf>,
    /// `cpu` or `cuda[:N]`.
    pub device: String,
    /// Control rate, Hz; `None` takes the policy's.
    pub rate: Option<f64>,
    /// What makes the loop tick.
    pub trigger: Trigger,
    /// What the control loop needs to know besides the policy.
    pub settings: Settings,
    /// Does the node configure and activate itself?
    pub autostart: bool,
    /// Are bundles of the topic looked at?
    pub accept_bundles: bool,
    /// Training runs that may take over from the first one; `*` is any.
    pub accept_runs: Vec<String>,
    /// Need versions not rise within a run?
    pub allow_downgrade: bool,
    /// How commands are published.
    pub command_topic: CommandTopic,
    /// The robot that a bundle must be for; empty is any.
    pub robot: String,
    /// Do the limits of the robot's own description count?
    pub use_robot_description: bool,
    /// Is everything computed, and nothing commanded?
    pub dry_run: bool,
    /// What the control thread asks of the kernel.
    pub realtime: Realtime,
    /// How joints are probed.
    pub probe: ProbeSettings,
    /// When the diagnostics warn.
    pub thresholds: Thresholds,
    /// Time from /clock?
    pub use_sim_time: bool,
    /// What is recorded, and where; `None` is nothing.
    pub recording: Option<recording::Settings>,
}

#[cfg(test)]
mod tests;
