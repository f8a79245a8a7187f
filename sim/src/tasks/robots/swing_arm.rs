//! `swing_arm`: one continuous joint with a weight at the end of its link. The motor is too weak to lift the weight
//! straight up, so that the arm has to swing to gather energy, then catch the weight at the top and hold it.

use std::f64::consts::{PI, TAU};

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{
    ActionJoint, ActionSpec, CommandInterface, JointSpec, ObservationSpec, ObservationTerm, RobotSpec,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::Mode;
use crate::tasks::robot_task::{RobotTask, Start};

/// The joint: 0 rad upright, pi hanging.
const SHOULDER: &str = "shoulder";
/// Torque limit, N m: 51 % of the torque that gravity has on the level arm.
const TORQUE_MAX: f64 = 0.25;
/// Speed that the joint never reaches in a sensible episode, rad/s.
const VELOCITY_MAX: f64 = 30.0;
/// Highest rate of change of the torque, N m/s: full reversal within half a control period.
const TORQUE_RATE_MAX: f64 = 50.0;
/// Scale of the velocity in the observation, s/rad.
const VELOCITY_SCALE: f64 = 0.1;
/// Time between two actions, ns.
const CONTROL_PERIOD_NS: u64 = 20_000_000;
/// Control periods in an episode: 2.5 s.
const EPISODE_STEPS: usize = 125;
/// The arm counts as upright within this angle, rad.
const HOLD_ANGLE: f64 = 0.25;
/// The arm counts as at rest below this speed, rad/s.
const HOLD_VELOCITY: f64 = 2.0;
/// Time at the end of an episode during which the arm has to be upright and at rest, s.
const HOLD_SECONDS: f64 = 0.4;
/// Share of successful episodes from which the task counts as learnt.
const SUCCESS_THRESHOLD: f64 = 0.7;
/// Evaluation starts hang within this angle of the lowest point, rad.
const START_ANGLE: f64 = 0.5;
/// Evaluation starts are slower than this, rad/s.
const START_VELOCITY: f64 = 1.0;
/// Half of the training starts are anywhere on the circle, at up to this speed, rad/s.
const EXPLORING_VELOCITY: f64 = 8.0;
/// Damping when no command comes, N m s/rad.
const SAFE_DAMPING: f64 = 0.02;
/// Width of the reward's peak at the upright pose, rad and rad/s.
const REWARD_WIDTH: (f64, f64) = (0.35, 4.0);

/// The task.
pub struct SwingArm {
    spec: RobotSpec,
}

impl SwingArm {
    /// Name in the registry.
    pub const NAME: &'static str = "swing_arm";

    /// The robot of `models/swing_arm.xml`.
    pub fn new() -> Self {
        let shoulder = || SHOULDER.to_owned();
        let terms = vec![
            ObservationTerm::SinPosition { joint: shoulder() },
            ObservationTerm::CosPosition { joint: shoulder() },
            ObservationTerm::Velocity {
                joint: shoulder(),
                scale: VELOCITY_SCALE,
            },
            ObservationTerm::PreviousAction { index: 0 },
        ];
        let spec = RobotSpec {
            robot: Self::NAME.to_owned(),
            joints: vec![JointSpec {
                name: shoulder(),
                position_min: None,
                position_max: None,
                velocity_max: VELOCITY_MAX,
                effort_max: TORQUE_MAX,
                command_rate_max: Some(TORQUE_RATE_MAX),
                acceleration_max: None,
            }],
            observation: ObservationSpec { terms },
            action: ActionSpec {
                interface: CommandInterface::Effort,
                joints: vec![ActionJoint {
                    joint: shoulder(),
                    offset: 0.0,
                    scale: TORQUE_MAX,
                }],
            },
            control_period_ns: CONTROL_PERIOD_NS,
            goal: None,
        };
        Self { spec }
    }
}

impl Default for SwingArm {
    fn default() -> Self {
        Self::new()
    }
}

/// Signed angle from the upright pose, rad, in `[-pi, pi)`.
fn angle_from_upright(state: &RobotState) -> f64 {
    (state.positions[0] + PI).rem_euclid(TAU) - PI
}

/// Angular velocity, rad/s.
fn velocity(state: &RobotState) -> f64 {
    state.velocities[0]
}

/// Height of the weight, 0 at the lowest and 1 at the highest point.
fn height(state: &RobotState) -> f64 {
    0.5 * (1.0 + angle_from_upright(state).cos())
}

impl RobotTask for SwingArm {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn spec(&self) -> &RobotSpec {
        &self.spec
    }

    fn model(&self) -> &'static str {
        include_str!("../../../models/swing_arm.xml")
    }

    fn camera(&self) -> &'static str {
        "front"
    }

    fn episode_steps(&self) -> usize {
        EPISODE_STEPS
    }

    fn start(&self, mode: Mode, rng: &mut ChaCha8Rng) -> Start {
        let exploring = mode == Mode::Train && rng.random_bool(0.5);
        let (angle, speed) = if exploring {
            (PI, EXPLORING_VELOCITY)
        } else {
            (START_ANGLE, START_VELOCITY)
        };
        Start {
            positions: vec![PI + rng.random_range(-angle..=angle)],
            velocities: vec![rng.random_range(-speed..=speed)],
            goal: [0.0; 3],
        }
    }

    /// Half for height, half for being upright and at rest: `(1 + cos q) / 4 + exp(-(q/w)^2 - (v/u)^2) / 2`.
    fn reward(&self, state: &RobotState) -> f64 {
        let (angle_width, velocity_width) = REWARD_WIDTH;
        let angle = angle_from_upright(state) / angle_width;
        let speed = velocity(state) / velocity_width;
        0.5 * height(state) + 0.5 * (-angle * angle - speed * speed).exp()
    }

    fn reward_range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }

    fn holds(&self, state: &RobotState) -> bool {
        angle_from_upright(state).abs() < HOLD_ANGLE && velocity(state).abs() < HOLD_VELOCITY
    }

    fn hold_seconds(&self) -> f64 {
        HOLD_SECONDS
    }

    fn success_threshold(&self) -> f64 {
        SUCCESS_THRESHOLD
    }

    /// Damping: the arm sinks and comes to rest.
    fn safe_command(&self, state: &RobotState, command: &mut [f64]) {
        command.fill((-SAFE_DAMPING * velocity(state)).clamp(-TORQUE_MAX, TORQUE_MAX));
    }
}
