//! The goal that somebody gives the robot while it runs, where its policy observes one. A goal in another frame than the
//! policy's is refused, never taken for one in the right frame; so is one outside the range that the policy was trained for.
//! It holds until the next one, or for a time: then whoever sends goals has to go on doing so, as with a heartbeat.

use mfpo_policy::spec::{Axis, GoalSpec, RobotSpec};
use thiserror::Error;

use crate::time::MonoTime;

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

/// Why there is no goal to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoGoal {
    /// Nobody has given one, since the last deactivation at least.
    Never,
    /// The newest one is too old.
    Late {
        /// Its age, ns.
        age: u64,
        /// How long one holds, ns.
        timeout: u64,
    },
}

/// The goal of one robot.
#[derive(Debug, Clone)]
pub struct Goal {
    /// What goals there may be; `None` where the policy observes none.
    spec: Option<GoalSpec>,
    /// How long one holds, ns; 0 until the next one.
    timeout: u64,
    /// The newest one, m, and when it came.
    given: Option<([f64; 3], MonoTime)>,
}

impl Goal {
    /// No goal yet; each holds for `timeout` (ns), with 0 until the next one.
    pub fn new(spec: &RobotSpec, timeout: u64) -> Self {
        Self {
            spec: spec.goal.clone().filter(|_| spec.observes_goal()),
            timeout,
            given: None,
        }
    }

    /// Changes how long a goal holds, ns; the one that is there, too.
    pub const fn set_timeout(&mut self, timeout: u64) {
        self.timeout = timeout;
    }

    /// Takes over a goal that has come `now`; `true` where there was none before.
    ///
    /// # Errors
    /// A [`GoalRefusal`]; the goal before stays, and is as old as it was.
    pub fn give(&mut self, frame: &str, position: [f64; 3], now: MonoTime) -> Result<bool, GoalRefusal> {
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
        Ok(self.given.replace((position, now)).is_none())
    }

    /// There is none any more: a robot that begins anew needs a new one.
    pub const fn forget(&mut self) {
        self.given = None;
    }

    /// The goal, m, in the frame of the policy's goals.
    pub fn position(&self) -> Option<[f64; 3]> {
        self.given.map(|(position, _)| position)
    }

    /// Is there a goal to act on, where the policy needs one?
    ///
    /// # Errors
    /// Why there is none.
    pub fn check(&self, now: MonoTime) -> Result<(), NoGoal> {
        if self.spec.is_none() {
            return Ok(());
        }
        let (_, at) = self.given.ok_or(NoGoal::Never)?;
        let (age, timeout) = (now.since(at), self.timeout);
        if timeout > 0 && age > timeout {
            return Err(NoGoal::Late { age, timeout });
        }
        Ok(())
    }
}
