//! What a benchmark task writes: a start, a step, an observation, a reward.

use rand_chacha::ChaCha8Rng;

use crate::physics::Physics;
use crate::{Camera, SimError};

/// One task of a benchmark, over a physics that is given to it. All numbers are those of the original, in double
/// precision.
pub trait BenchmarkTask: Send {
    /// Puts the physics, which was just reset, to a random start of the original's distribution, derived quantities
    /// included.
    ///
    /// # Errors
    /// When no start could be found.
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError>;

    /// Takes up whatever the task remembers from the physics after a state was set from outside.
    fn state_was_set(&mut self, physics: &mut Physics) {
        physics.forward();
    }

    /// Applies `action` (the actuators' own units, not clipped) for one control period.
    ///
    /// # Errors
    /// When the physics cannot go on.
    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError>;

    /// Appends the observation.
    fn observe(&self, physics: &Physics, out: &mut Vec<f64>);

    /// The reward of the step that was just done.
    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64;

    /// Whether the episode has ended in a state from which nothing more is earned.
    fn terminated(&self, physics: &Physics) -> bool;

    /// Where pictures are taken from.
    fn camera(&self) -> Camera {
        Camera::Usual
    }

    /// Values that the task keeps in the model, by name: targets, sizes.
    fn model_values(&self, _physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        Vec::new()
    }

    /// Sets one of them.
    ///
    /// # Errors
    /// [`SimError::StartState`] for a name that the task does not have or another length.
    fn set_model_value(
        &mut self,
        _physics: &mut Physics,
        name: &str,
        values: &[f64],
    ) -> Result<(), SimError> {
        let _ = values;
        Err(keeps_nothing(name))
    }
}

/// The refusal of the model value `name` by a task that has none.
pub(crate) fn keeps_nothing(name: &str) -> SimError {
    SimError::StartState {
        what: "model value".into(),
        expected: "none: the task keeps nothing in the model".into(),
        got: format!("'{name}'"),
    }
}

/// A task with its physics and what an environment has to know of it.
pub struct Benchmark {
    /// Model and state.
    pub physics: Physics,
    /// The rules.
    pub task: Box<dyn BenchmarkTask>,
    /// Time between two actions, s.
    pub control_period: f64,
    /// Control periods after which an episode is truncated.
    pub episode_steps: usize,
    /// Lowest and highest reward of a step whose commands are within their ranges; infinite where there is no bound.
    pub reward_range: (f64, f64),
    /// A step in which MuJoCo warns, of physics that diverge above all, is an error. Without this the task goes on from the rest
    /// pose that MuJoCo puts a model into which diverged, and that is logged.
    pub stops_at_warnings: bool,
}
