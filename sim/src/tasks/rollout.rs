//! A task driven from outside, step by step and past an end, to be compared with any other implementation.

use serde::{Deserialize, Serialize};

use crate::SimError;

/// A state to start from; what is left out is drawn at random. With all parts of a state from the middle of a benchmark's
/// episode that goes on as it would have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FullState {
    /// Positions, `[nq]`.
    pub qpos: Option<Vec<f64>>,
    /// Velocities, `[nv]`.
    pub qvel: Option<Vec<f64>>,
    /// Actuator activations, `[na]`.
    pub act: Option<Vec<f64>>,
    /// Simulated time, s.
    pub time: Option<f64>,
    /// Where the constraint solver starts, `[nv]`; zeros where it is left out.
    pub qacc_warmstart: Option<Vec<f64>>,
    /// Control periods that the episode has behind it, which count for its time limit; 0 where they are left out.
    pub steps: Option<u32>,
    /// What the task keeps in the model, by name.
    pub model: std::collections::BTreeMap<String, Vec<f64>>,
}

/// What one step gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// Reward of the step.
    pub reward: f64,
    /// The task's own end.
    pub terminated: bool,
    /// The time limit.
    pub truncated: bool,
}

/// A task that goes wherever it is sent.
pub trait Rollout {
    /// Sets the state; what `state` leaves out is the random start of `seed`.
    ///
    /// # Errors
    /// [`SimError::StartState`] for a part of another length or a name that the task does not have; a state in which the
    /// observation is not finite.
    fn begin(&mut self, state: &FullState, seed: u64) -> Result<(), SimError>;

    /// Applies an action in the actuators' own units, unscaled and unclipped; goes on past an end.
    ///
    /// # Errors
    /// For an action of another length or that is not finite, and for a state, an observation or a reward that is not: no
    /// number stands for it in JSON. [`SimError::Warned`] in a task that stops at MuJoCo's warnings.
    fn apply(&mut self, action: &[f64]) -> Result<Outcome, SimError>;

    /// The last observation, in double precision.
    fn observation(&self) -> &[f64];

    /// Positions, `[nq]`.
    fn qpos(&self) -> &[f64];

    /// Velocities, `[nv]`.
    fn qvel(&self) -> &[f64];

    /// Contacts in the last physics step.
    fn contacts(&self) -> usize;
}

/// Copies `from` where it is given, after a look at its length.
pub(crate) fn copy_part(what: &str, from: Option<&Vec<f64>>, to: &mut [f64]) -> Result<(), SimError> {
    let Some(from) = from else { return Ok(()) };
    if from.len() != to.len() || from.iter().any(|v| !v.is_finite()) {
        return Err(SimError::StartState {
            what: what.to_owned(),
            expected: format!("{} finite numbers", to.len()),
            got: format!(
                "{} numbers ({} of them finite)",
                from.len(),
                from.iter().filter(|v| v.is_finite()).count()
            ),
        });
    }
    to.copy_from_slice(from);
    Ok(())
}
