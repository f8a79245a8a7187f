//! The goal that somebody gives the robot while it runs, where its policy observes one. A goal in another frame than the
//! policy's is refused, never taken for one in the right frame; so is one outside the range that the policy was trained for.

use mfpo_policy::spec::{Axis, GoalSpec, RobotSpec};
use thiserror::Error;

/// Why a goal was refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum GoalRefusal {
    /// Nobody knows yet what goals there may be.
    #[error("goal refused: no policy is loaded that could reach it; send it again when one is")]
    NoPolicy,
    /// The policy has no use for one.
    #[error("goal refused: the policy observes none")]
    NotObserved,
    /// Given in another frame.
    #[error(
        "goal refused: its frame_id is '{got}'; expected '{expected}', the robot's base: transform it before it is sent"
    )]
    Frame {
        /// The frame of the policy's goals.
        expected: String,
        /// The frame that came.
        got: String,
    },
    /// A coordinate is NaN, infinite, or where the policy was not trained.
    #[error(
        "goal refused: its {axis} is {got} m; expected {low} to {high}, the range that the policy was trained for"
    )]
    Outside {
        /// The coordinate.
        axis: char,
        /// Its value, m.
        got: f64,
        /// Least value, m.
        low: f64,
        /// Greatest value, m.
        high: f64,
    },
}

/// The goal of one robot.
#[derive(Debug, Clone)]
pub struct Goal {
    /// What goals there may be; `None` where the policy observes none.
    spec: Option<GoalSpec>,
    position: Option<[f64; 3]>,
}

impl Goal {
    /// No goal yet.
    pub fn new(spec: &RobotSpec) -> Self {
        Self {
            spec: spec.goal.clone().filter(|_| spec.observes_goal()),
            position: None,
        }
    }

    /// Takes a goal over; `true` where there was none before.
    ///
    /// # Errors
    /// A [`GoalRefusal`]; the goal before stays.
    pub fn give(&mut self, frame: &str, position: [f64; 3]) -> Result<bool, GoalRefusal> {
        let Some(spec) = &self.spec else {
            return Err(GoalRefusal::NotObserved);
        };
        if frame != spec.frame {
            return Err(GoalRefusal::Frame {
                expected: spec.frame.clone(),
                got: frame.to_owned(),
            });
        }
        let ranges = spec.min.into_iter().zip(spec.max);
        for ((axis, got), (low, high)) in Axis::ALL.into_iter().zip(position).zip(ranges) {
            if !(low..=high).contains(&got) {
                return Err(GoalRefusal::Outside {
                    axis: axis.name(),
                    got,
                    low,
                    high,
                });
            }
        }
        Ok(self.position.replace(position).is_none())
    }

    /// There is none any more: a robot that begins anew needs a new one.
    pub const fn forget(&mut self) {
        self.position = None;
    }

    /// The goal, m, in the frame of the policy's goals.
    pub const fn position(&self) -> Option<[f64; 3]> {
        self.position
    }

    /// Does the policy need one that nobody has given?
    pub const fn is_missing(&self) -> bool {
        self.spec.is_some() && self.position.is_none()
    }
}
