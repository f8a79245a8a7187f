//! What a policy acts on: a robot, which a control node may run it on, or a task of a benchmark, which lives in the
//! simulator only. Whoever commands a robot takes the one and never the other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::spec::{RobotSpec, SpecError};

/// What a policy acts on.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A robot.
    Robot(RobotSpec),
    /// A task of a benchmark.
    Task(TaskSpec),
}

/// A task of a benchmark, as it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Name in the registry of tasks.
    pub name: String,
    /// The task's own options by name; those that are not there have the task's own values.
    #[serde(deserialize_with = "bounds::options")]
    pub options: BTreeMap<String, serde_json::Value>,
    /// Components of an observation.
    pub observation_size: usize,
    /// Components of an action, each in `[-1, 1]`.
    pub action_size: usize,
    /// Time between two actions, ns.
    pub control_period_ns: u64,
}

impl TaskSpec {
    /// Checks that there is something to observe, to do, and time to do it in.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.name.is_empty() {
            return Err(SpecError::Empty { what: "task name" });
        }
        for (what, number) in [
            ("observation_size", self.observation_size as u64),
            ("action_size", self.action_size as u64),
            ("control_period_ns", self.control_period_ns),
        ] {
            if number == 0 {
                return Err(SpecError::OutOfRange {
                    what,
                    name: self.name.clone(),
                    expected: "1 or more",
                    got: 0.0,
                });
            }
        }
        Ok(())
    }
}

impl Subject {
    /// Checks the robot's or the task's own rules.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Result<(), SpecError> {
        match self {
            Self::Robot(robot) => robot.validate(),
            Self::Task(task) => task.validate(),
        }
    }

    /// Name of the robot or the task.
    pub fn name(&self) -> &str {
        match self {
            Self::Robot(robot) => &robot.robot,
            Self::Task(task) => &task.name,
        }
    }

    /// The robot, where it is one.
    pub fn robot(&self) -> Option<&RobotSpec> {
        match self {
            Self::Robot(robot) => Some(robot),
            Self::Task(_) => None,
        }
    }

    /// Components of an observation.
    pub fn observation_size(&self) -> usize {
        match self {
            Self::Robot(robot) => robot.observation_size(),
            Self::Task(task) => task.observation_size,
        }
    }

    /// Components of an action.
    pub fn action_size(&self) -> usize {
        match self {
            Self::Robot(robot) => robot.action_size(),
            Self::Task(task) => task.action_size,
        }
    }

    /// Time between two actions, s.
    pub fn control_period(&self) -> f64 {
        match self {
            Self::Robot(robot) => robot.control_period(),
            Self::Task(task) => task.control_period_ns as f64 * 1e-9,
        }
    }
}
