//! A task for a robot of our own: what the robot is, where its episodes start, what is worth how much, and when an
//! episode has succeeded. [`super::RobotEnv`] makes an environment of it, [`crate::robot::Robot`] runs it in real
//! time; both judge by the same words.

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::RobotSpec;
use rand_chacha::ChaCha8Rng;

use crate::Mode;

/// A robot and what it has to do.
pub trait RobotTask: Send + Sync {
    /// Name in the registry.
    fn name(&self) -> &'static str;

    /// Joints, observation, action and control period. Every action joint has an actuator of the same name.
    fn spec(&self) -> &RobotSpec;

    /// Text of the MuJoCo model.
    fn model(&self) -> &'static str;

    /// The model's camera for pictures.
    fn camera(&self) -> &'static str;

    /// Control periods in an episode.
    fn episode_steps(&self) -> usize;

    /// Draws where an episode starts.
    fn start(&self, mode: Mode, rng: &mut ChaCha8Rng) -> Start;

    /// What a state is worth, within [`RobotTask::reward_range`].
    fn reward(&self, state: &RobotState) -> f64;

    /// Lowest and highest reward.
    fn reward_range(&self) -> (f64, f64);

    /// Is the goal held in this state?
    fn holds(&self, state: &RobotState) -> bool;

    /// Time at the end of an episode during which the goal has to be held without a break, s.
    fn hold_seconds(&self) -> f64;

    /// Share of successful episodes from which the task counts as learnt.
    fn success_threshold(&self) -> f64;

    /// What the robot does on its own when no command comes, in the unit of its interface, `[A]`.
    fn safe_command(&self, state: &RobotState, command: &mut [f64]);
}

/// Where an episode starts, in the order of the robot's joints.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Joint positions, rad, `[J]`.
    pub positions: Vec<f64>,
    /// Joint velocities, rad/s, `[J]`.
    pub velocities: Vec<f64>,
    /// Goal of the episode, m, in the frame of the robot's goals; zeros where it has none. A site called `goal` shows it.
    pub goal: [f64; 3],
}

/// Counts for how long the goal has been held without a break.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hold {
    steps: u64,
}

impl Hold {
    /// One more physics step, with or without the goal.
    pub fn update(&mut self, holds: bool) {
        self.steps = if holds { self.steps + 1 } else { 0 };
    }

    /// Has the goal been held for `seconds` up to now? `timestep` is the physics step, s.
    pub fn lasted(&self, seconds: f64, timestep: f64) -> bool {
        self.steps as f64 * timestep >= seconds - 0.5 * timestep
    }
}
