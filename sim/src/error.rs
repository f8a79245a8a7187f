//! What can go wrong in the simulator, each with what was expected, what came and what to do.

use mfpo_policy::spec::SpecError;
use thiserror::Error;

/// Why the simulator refused or stopped.
#[derive(Debug, Error)]
pub enum SimError {
    /// No task has this name.
    #[error("there is no task '{name}'; did you mean '{closest}'? The tasks are: {known}")]
    UnknownTask {
        /// The name that came.
        name: String,
        /// The task with the most similar name.
        closest: &'static str,
        /// All tasks, separated by commas.
        known: String,
    },
    /// MuJoCo refused a model.
    #[error("MuJoCo refused the model: {0}")]
    Model(String),
    /// The model lacks something that the task names.
    #[error("the model has no {kind} '{name}'")]
    MissingElement {
        /// Joint, actuator or camera.
        kind: &'static str,
        /// The name that was looked for.
        name: String,
    },
    /// A task of a benchmark was asked for as a robot.
    #[error("task '{0}' is no robot that could run in real time; `swing_arm` is one")]
    NotARobot(String),
    /// A robot of our own was asked for as a task of a benchmark.
    #[error("task '{0}' is a robot of our own, no task of a benchmark; `HalfCheetah-v5` is one")]
    NotABenchmark(String),
    /// A model file that the set-up brings is not there.
    #[error(
        "the model file {path} is not there; `cargo xtask setup` brings the models of Gymnasium and the DeepMind Control \
         Suite, then `source .deps/setup.bash` (or set MFPO_MODELS to a folder with gymnasium/ and dm_control/)"
    )]
    MissingModel {
        /// Where it was looked for.
        path: String,
    },
    /// A task without actuators, or with one that actions cannot be scaled to.
    #[error(
        "task '{task}' has {got}; expected one actuator or more, each with a ctrlrange that rises: actions in [-1, 1] are \
         scaled to it"
    )]
    Actuators {
        /// The task.
        task: String,
        /// What it has.
        got: String,
    },
    /// An option of a task that does not exist or has a value of another type.
    #[error("task '{task}': {reason}")]
    TaskOption {
        /// The task.
        task: String,
        /// What was expected and what came.
        reason: String,
    },
    /// A state to start from that does not belong to the model.
    #[error("the start state has {what} of {got}; expected {expected}")]
    StartState {
        /// Which part of the state.
        what: String,
        /// What fits the model.
        expected: String,
        /// What came.
        got: String,
    },
    /// The robot's spec breaks one of its own rules.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// An option is outside its range.
    #[error("option '{what}' is {got}; expected {expected}")]
    Option {
        /// The option.
        what: &'static str,
        /// What a valid value looks like.
        expected: &'static str,
        /// The value that came.
        got: f64,
    },
    /// A delay that a benchmark would round to none.
    #[error(
        "option 'action_delay_max' is {got} s, which rounds to 0 control periods of {period} s; expected 0 for no \
         delay, or half a control period and more: a benchmark delays by whole ones"
    )]
    ShortDelay {
        /// The delay that came, s.
        got: f64,
        /// The task's control period, s.
        period: f64,
    },
    /// A vector of the wrong length.
    #[error("{what} has {got} components; expected {expected}")]
    Size {
        /// Action, command, pose, observation or reward.
        what: &'static str,
        /// The length that was expected.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// A number that is NaN or infinite.
    #[error("component {index} of the {what} is {got}; expected a finite number")]
    NotFinite {
        /// Action, command, pose, observation or reward.
        what: &'static str,
        /// Which component.
        index: usize,
        /// The value that came.
        got: f64,
    },
    /// `step` before the first `reset`.
    #[error("step was called before reset; call reset first")]
    NotReset,
    /// `step` after the episode's end.
    #[error("the episode ended after {steps} steps; call reset before the next step")]
    EpisodeOver {
        /// Steps of the episode that is over.
        steps: usize,
    },
    /// The physics diverged.
    #[error("the simulation diverged at {time:.3} s: a position or velocity is no longer finite")]
    Unstable {
        /// Simulated time, s.
        time: f64,
    },
    /// MuJoCo warned, in a task that stops there.
    #[error(
        "task '{task}': MuJoCo warned of {warning} in step {step} of an episode, and the task stops there; a shorter physics step or \
         smaller commands may prevent it"
    )]
    Warned {
        /// The task.
        task: String,
        /// What MuJoCo warned of.
        warning: &'static str,
        /// Control periods of the episode, this one included.
        step: usize,
    },
    /// Off-screen rendering is not available, or failed.
    #[error(
        "off-screen rendering failed: {0}; it needs EGL: `apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri`, \
         or the driver of your GPU"
    )]
    Rendering(String),
}

/// Refuses a vector of another length or with a number that is not finite.
pub(crate) fn check_vector<T: Copy + Into<f64>>(
    what: &'static str,
    values: &[T],
    expected: usize,
) -> Result<(), SimError> {
    if values.len() != expected {
        return Err(SimError::Size {
            what,
            expected,
            got: values.len(),
        });
    }
    match values.iter().position(|v| !(*v).into().is_finite()) {
        Some(index) => Err(SimError::NotFinite {
            what,
            index,
            got: values[index].into(),
        }),
        None => Ok(()),
    }
}
