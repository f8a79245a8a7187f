//! Tasks by name.

use std::sync::Arc;

use super::robot_env::RobotEnv;
use super::robot_task::RobotTask;
use super::robots::swing_arm::SwingArm;
use crate::{Env, EnvOptions, SimError};

/// What an entry of the registry makes.
enum Factory {
    /// A robot of our own, which also runs in real time.
    Robot(fn() -> Arc<dyn RobotTask>),
}

const TASKS: &[(&str, Factory)] = &[(SwingArm::NAME, Factory::Robot(|| Arc::new(SwingArm::new())))];

/// The names of all tasks.
pub fn names() -> Vec<&'static str> {
    TASKS.iter().map(|(name, _)| *name).collect()
}

/// Makes the task called `name`.
///
/// # Errors
/// [`SimError::UnknownTask`] naming the closest task, or an option or model that was refused.
pub fn make(name: &str, options: &EnvOptions) -> Result<Box<dyn Env>, SimError> {
    match find(name)? {
        Factory::Robot(factory) => Ok(Box::new(RobotEnv::new(factory(), options)?)),
    }
}

/// Makes the robot of the task called `name`, to run it in real time.
///
/// # Errors
/// [`SimError::UnknownTask`] naming the closest task.
pub fn robot(name: &str) -> Result<Arc<dyn RobotTask>, SimError> {
    match find(name)? {
        Factory::Robot(factory) => Ok(factory()),
    }
}

fn find(name: &str) -> Result<&'static Factory, SimError> {
    let known = TASKS.iter().find(|(task, _)| *task == name);
    known.map(|(_, factory)| factory).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> SimError {
    let similarity = |task: &str| strsim::jaro_winkler(task, name);
    let closest = names()
        .into_iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    SimError::UnknownTask {
        name: name.to_owned(),
        closest: closest.unwrap_or_default(),
        known: names().join(", "),
    }
}
