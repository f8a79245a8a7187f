//! `reach_arm`: two joints that turn in a horizontal plane bring the tip of the arm to a goal, which somebody gives while
//! the robot runs, and hold it there. The commands are joint velocities.

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, Axis, CommandInterface, GoalSpec, JointSpec, ObservationSpec, ObservationTerm,
    RobotSpec,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::Mode;
use crate::tasks::robot_task::{RobotTask, Start};

/// The joints: name, limit in either direction in rad, effort limit in N m.
const JOINTS: [(&str, f64, f64); 2] = [("shoulder", 2.2, 4.0), ("elbow", 2.7, 2.0)];
/// Lengths of the two links, m.
const LINKS: (f64, f64) = (0.3, 0.25);
/// Speed limit, rad/s.
const VELOCITY_MAX: f64 = 2.0;
/// Highest rate of change of the commanded velocity, rad/s^2.
const COMMAND_RATE_MAX: f64 = 40.0;
/// Scale of the velocities in the observation, s/rad.
const VELOCITY_SCALE: f64 = 0.5;
/// Scale of the goal in the observation, 1/m.
const GOAL_SCALE: f64 = 3.0;
/// Frame of the goals.
const FRAME: &str = "base";
/// Goals lie in this box, which the tip can reach, m. The arm's plane is in the middle of its height.
const GOALS: ([f64; 3], [f64; 3]) = ([0.15, -0.35, 0.0], [0.38, 0.35, 0.2]);
/// Height of the arm's plane, m.
const HEIGHT: f64 = 0.1;
/// Time between two actions, ns.
const CONTROL_PERIOD_NS: u64 = 20_000_000;
/// Control periods in an episode: 3 s.
const EPISODE_STEPS: usize = 150;
/// The tip is at the goal within this distance, m.
const HOLD_DISTANCE: f64 = 0.03;
/// Time at the end of an episode during which the tip has to be there, s.
const HOLD_SECONDS: f64 = 0.4;
/// Share of successful episodes from which the task counts as learnt.
const SUCCESS_THRESHOLD: f64 = 0.8;
/// Starts are within this part of the joints' ranges.
const START_SHARE: f64 = 0.6;
/// Width of the reward's peak at the goal, m.
const REWARD_WIDTH: f64 = 0.05;
/// Length by which the reward falls off further away, m.
const REWARD_LENGTH: f64 = 0.3;

/// The task.
pub struct ReachArm {
    spec: RobotSpec,
}

impl ReachArm {
    /// Name in the registry.
    pub const NAME: &'static str = "reach_arm";

    /// The robot of `models/reach_arm.xml`.
    pub fn new() -> Self {
        let names = || JOINTS.iter().map(|(name, ..)| (*name).to_owned());
        let angles = names().flat_map(|joint| {
            [
                ObservationTerm::SinPosition { joint: joint.clone() },
                ObservationTerm::CosPosition { joint },
            ]
        });
        let velocities = names().map(|joint| ObservationTerm::Velocity {
            joint,
            scale: VELOCITY_SCALE,
        });
        let goal = [Axis::X, Axis::Y].map(|axis| ObservationTerm::Goal {
            axis,
            scale: GOAL_SCALE,
        });
        let previous = [0, 1].map(|index| ObservationTerm::PreviousAction { index });
        let joint = |(name, limit, effort_max): &(&str, f64, f64)| JointSpec {
            name: (*name).to_owned(),
            position_min: Some(-limit),
            position_max: Some(*limit),
            velocity_max: VELOCITY_MAX,
            effort_max: *effort_max,
            acceleration_max: None,
            command_rate_max: Some(COMMAND_RATE_MAX),
        };
        let action = |joint| ActionJoint {
            joint,
            offset: 0.0,
            scale: VELOCITY_MAX,
        };
        let spec = RobotSpec {
            robot: Self::NAME.to_owned(),
            joints: JOINTS.iter().map(joint).collect(),
            observation: ObservationSpec {
                terms: angles.chain(velocities).chain(goal).chain(previous).collect(),
            },
            action: ActionSpec {
                interface: CommandInterface::Velocity,
                joints: names().map(action).collect(),
            },
            control_period_ns: CONTROL_PERIOD_NS,
            goal: Some(GoalSpec {
                frame: FRAME.to_owned(),
                min: GOALS.0,
                max: GOALS.1,
            }),
        };
        Self { spec }
    }
}

impl Default for ReachArm {
    fn default() -> Self {
        Self::new()
    }
}

/// Distance from the tip to the goal in the arm's plane, m.
fn distance(state: &RobotState) -> f64 {
    let (shoulder, both) = (state.positions[0], state.positions[0] + state.positions[1]);
    let x = LINKS.0 * shoulder.cos() + LINKS.1 * both.cos();
    let y = LINKS.0 * shoulder.sin() + LINKS.1 * both.sin();
    (x - state.goal[0]).hypot(y - state.goal[1])
}

impl RobotTask for ReachArm {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn spec(&self) -> &RobotSpec {
        &self.spec
    }

    fn model(&self) -> &'static str {
        include_str!("../../../models/reach_arm.xml")
    }

    fn camera(&self) -> &'static str {
        "front"
    }

    fn episode_steps(&self) -> usize {
        EPISODE_STEPS
    }

    fn start(&self, _mode: Mode, rng: &mut ChaCha8Rng) -> Start {
        let (min, max) = GOALS;
        Start {
            positions: JOINTS
                .iter()
                .map(|(_, limit, _)| rng.random_range(-START_SHARE * limit..=START_SHARE * limit))
                .collect(),
            velocities: vec![0.0; JOINTS.len()],
            goal: [
                rng.random_range(min[0]..=max[0]),
                rng.random_range(min[1]..=max[1]),
                HEIGHT,
            ],
        }
    }

    /// Half for being near, half for being there: `exp(-d / l) / 2 + exp(-(d / w)^2) / 2`.
    fn reward(&self, state: &RobotState) -> f64 {
        let distance = distance(state);
        0.5 * (-distance / REWARD_LENGTH).exp() + 0.5 * (-(distance / REWARD_WIDTH).powi(2)).exp()
    }

    fn reward_range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }

    fn holds(&self, state: &RobotState) -> bool {
        distance(state) < HOLD_DISTANCE
    }

    fn hold_seconds(&self) -> f64 {
        HOLD_SECONDS
    }

    fn success_threshold(&self) -> f64 {
        SUCCESS_THRESHOLD
    }

    /// Standing still.
    fn safe_command(&self, _state: &RobotState, command: &mut [f64]) {
        command.fill(0.0);
    }
}
