//! What the trainer sees of a task: reset, step, and a spec that says what goes in and comes out.

use mfpo_policy::subject::Subject;
use serde::{Deserialize, Serialize};

use crate::physics::Physics;
use crate::{Camera, Randomization, SimError};

/// A task as a sequence of decisions. Actions are in `[-1, 1]`; the same seed gives the same episode.
pub trait Env: Send {
    /// Sizes, ranges, and what a policy acts on.
    fn spec(&self) -> &EnvSpec;

    /// Starts the episode of `seed` and returns its first observation.
    ///
    /// # Errors
    /// A [`SimError`] when the physics does not start.
    fn reset(&mut self, seed: u64) -> Result<Vec<f32>, SimError>;

    /// Applies `action` for one control period. Where MuJoCo puts a model of Gymnasium's that diverged back to its rest pose, the
    /// episode goes on from there, as the original's does, and a warning is logged.
    ///
    /// # Errors
    /// [`SimError::NotReset`], [`SimError::EpisodeOver`], an action of the wrong length or with a number that is
    /// not finite, or a state, an observation or a reward that is not finite; [`SimError::Warned`] in a task of the DeepMind
    /// Control Suite, which stops where the original does.
    fn step(&mut self, action: &[f32]) -> Result<Step, SimError>;

    /// Model and state, to be drawn.
    fn physics(&mut self) -> &mut Physics;

    /// Where pictures are taken from.
    fn camera(&self) -> Camera;
}

/// Sizes and ranges of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvSpec {
    /// Name in the registry.
    pub name: String,
    /// Components of an observation.
    pub observation_size: usize,
    /// Components of an action, each in `[-1, 1]`.
    pub action_size: usize,
    /// Steps after which an episode is truncated.
    pub max_episode_steps: usize,
    /// The robot that a policy of this task can run on, or what it takes to make the task again.
    pub subject: Subject,
    /// Lowest and highest reward of a step; where no law bounds a term, such as a speed, as far as a sane state goes.
    pub reward_range: (f64, f64),
    /// Share of successful episodes from which the task counts as learnt; `None` where success is not defined.
    pub success_threshold: Option<f64>,
}

/// What one step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Observation after the step, `[S]`.
    pub observation: Vec<f32>,
    /// Reward of the step.
    pub reward: f64,
    /// The episode ended in a state from which nothing more is earned.
    pub terminated: bool,
    /// The episode was cut off; its last state still has a value.
    pub truncated: bool,
    /// What is not for the policy.
    pub info: Info,
}

/// What a step tells beside observation and reward.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Info {
    /// At the end of an episode: did it succeed? `None` before the end and for tasks without success.
    pub success: Option<bool>,
}

/// Which episodes an environment gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Starts spread widely, so that every state is met early.
    #[default]
    Train,
    /// The starts by which the task is judged.
    Evaluate,
}

/// How to make an environment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EnvOptions {
    /// Which starts.
    pub mode: Mode,
    /// What differs between episodes; by default the task's own action delay alone.
    pub randomization: Randomization,
    /// Steps of an episode; `None` for the task's own.
    pub max_episode_steps: Option<usize>,
    /// The task's own options by name, for example `frame_skip`; none changes nothing.
    pub task: TaskOptions,
}

/// Options of a task by name.
pub type TaskOptions = serde_json::Map<String, serde_json::Value>;

impl EnvOptions {
    /// The task's own training episodes.
    pub fn train() -> Self {
        Self::default()
    }

    /// The episodes by which the task is judged.
    pub fn evaluate() -> Self {
        Self {
            mode: Mode::Evaluate,
            ..Self::default()
        }
    }
}

/// Seed of evaluation start `index` in the list that belongs to `seed`. The simulated robot and the evaluation of
/// the trainer use the same list, so that both judge a policy on the same starts.
pub fn evaluation_seed(seed: u64, index: u64) -> u64 {
    // SplitMix64: neighbouring indices give unrelated seeds, far from the small seeds of training runs.
    let mut z = seed
        .wrapping_mul(0xD134_2543_DE82_EF95)
        .wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    // 53 bits, so that a seed survives JSON readers that know only doubles.
    (z ^ (z >> 31)) >> 11
}
