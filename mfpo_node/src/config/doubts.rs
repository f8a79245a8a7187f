//! What parameters that are valid do all the same, where hardly anybody means it: on a robot with this period and these
//! commands.

use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::{CommandTopic, Config};

/// From here on a time that the robot is commanded without news is doubtful, s ...
const LONG: f64 = 1.0;
/// ... where it is as many control periods, too.
const PERIODS: f64 = 10.0;

impl Config {
    /// What is worth a warning on this robot, each in a sentence.
    pub fn doubts(&self, spec: &RobotSpec) -> Vec<String> {
        let doubts = [
            self.stale_timeout_is_long(spec),
            self.enable_timeout_is_long(),
            self.budget_is_long(spec),
            self.trajectory_has_no_positions(spec),
        ];
        doubts.into_iter().flatten().collect()
    }

    fn stale_timeout_is_long(&self, spec: &RobotSpec) -> Option<String> {
        let seconds = self.settings.stale_after as f64 * 1e-9;
        let periods = seconds / spec.control_period();
        (seconds > LONG && periods > PERIODS).then(|| {
            format!(
                "parameter stale_timeout is {seconds} s: a robot that reports nothing is commanded blindly for {periods:.0} control \
                 periods; expected seconds (100 ms are 0.1), as a rule some periods of the joint states"
            )
        })
    }

    fn enable_timeout_is_long(&self) -> Option<String> {
        let seconds = self.settings.enable_timeout as f64 * 1e-9;
        (seconds > LONG).then(|| {
            format!(
                "parameter enable_timeout is {seconds} s: for so long the robot moves on after the last heartbeat; expected \
                 seconds (100 ms are 0.1), as a rule some periods of the heartbeat"
            )
        })
    }

    fn budget_is_long(&self, spec: &RobotSpec) -> Option<String> {
        let (seconds, period) = (self.settings.compute_budget as f64 * 1e-9, spec.control_period());
        (seconds > period).then(|| {
            format!(
                "parameter compute_budget is {seconds} s, longer than the control period of {period} s: it keeps no tick from \
                 being missed; expected seconds, below the period (1 ms is 0.001)"
            )
        })
    }

    fn trajectory_has_no_positions(&self, spec: &RobotSpec) -> Option<String> {
        let what = match spec.action.interface {
            CommandInterface::Position => return None,
            CommandInterface::Velocity => "velocities",
            CommandInterface::Effort => "efforts",
        };
        (self.command_topic == CommandTopic::JointTrajectory).then(|| {
            format!(
                "parameter command_topic_type is joint_trajectory, but the policy commands {what}: a trajectory without positions, \
                 which ros2_control's joint_trajectory_controller refuses; expected float64_multi_array and a controller that \
                 forwards {what} (velocity_controllers, effort_controllers or forward_command_controller), or a policy that \
                 commands positions"
            )
        })
    }
}
