//! What a policy and a robot must agree on: joints with units and limits, the layout of the observation, the
//! meaning of an action, and the control period. Two sides agree when the [`RobotSpec::hash`] of both is equal.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::bounds;
use crate::digest::feed_json;

/// Why a [`RobotSpec`] was refused: what was expected, what came.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SpecError {
    /// The robot, or one of its lists, is empty.
    #[error("{what} is empty; state at least one")]
    Empty {
        /// The list or name that is empty.
        what: &'static str,
    },
    /// Two joints have the same name.
    #[error("joint '{joint}' is listed twice in {place}; every joint is listed once")]
    DuplicateJoint {
        /// The name that appears twice.
        joint: String,
        /// The list that holds it.
        place: &'static str,
    },
    /// A term or an action names a joint that the robot does not have.
    #[error("{place} names joint '{joint}', which is not among the robot's joints [{known}]")]
    UnknownJoint {
        /// The unknown name.
        joint: String,
        /// The list that names it.
        place: &'static str,
        /// The robot's joints, separated by commas.
        known: String,
    },
    /// A number is outside its range.
    #[error("{what} of '{name}' is {got}; expected {expected}")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// The joint or term it belongs to.
        name: String,
        /// What a valid value looks like.
        expected: &'static str,
        /// The value that came.
        got: f64,
    },
    /// A term asks for a goal that the robot is not given.
    #[error("an observation term is the goal, but the robot has none; state goal: frame, min and max")]
    NoGoal,
    /// `PreviousAction` points past the action.
    #[error("observation term previous_action has index {index}, but the action has {actions} components")]
    PreviousActionIndex {
        /// The index that came.
        index: usize,
        /// The size of the action.
        actions: usize,
    },
}

/// What a command means to the joint's motor controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandInterface {
    /// Joint position, rad (m for prismatic joints).
    Position,
    /// Joint velocity, rad/s (m/s).
    Velocity,
    /// Joint effort, N m (N).
    Effort,
}

impl CommandInterface {
    /// The SI unit of a command, for messages and manifests.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Position => "rad",
            Self::Velocity => "rad/s",
            Self::Effort => "N m",
        }
    }
}

/// One joint and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointSpec {
    /// Name in `sensor_msgs/JointState`.
    pub name: String,
    /// Lowest position, rad; `None` for a continuous joint.
    pub position_min: Option<f64>,
    /// Highest position, rad; `None` for a continuous joint.
    pub position_max: Option<f64>,
    /// Highest speed, rad/s.
    pub velocity_max: f64,
    /// Highest effort, N m.
    pub effort_max: f64,
    /// Highest rate of change of the command, command unit per second; `None` for no limit.
    pub command_rate_max: Option<f64>,
    /// Highest acceleration of a commanded position or velocity, rad/s^2; `None` for no limit. A spec without one has the
    /// JSON, and so the hash, that it had before there was this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration_max: Option<f64>,
}

/// One number of the observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "term", rename_all = "snake_case", try_from = "TermFields")]
pub enum ObservationTerm {
    /// `scale` times the joint position, rad.
    Position {
        /// Joint name.
        joint: String,
        /// Factor, 1/rad.
        scale: f64,
    },
    /// Sine of the joint position.
    SinPosition {
        /// Joint name.
        joint: String,
    },
    /// Cosine of the joint position.
    CosPosition {
        /// Joint name.
        joint: String,
    },
    /// `scale` times the joint velocity, rad/s.
    Velocity {
        /// Joint name.
        joint: String,
        /// Factor, s/rad.
        scale: f64,
    },
    /// Component `index` of the action sent one control period earlier, in `[-1, 1]`: with a command delay the
    /// state alone is not Markov.
    PreviousAction {
        /// Index into the action.
        index: usize,
    },
    /// `scale` times a coordinate of the goal, m, in the frame of [`GoalSpec`].
    Goal {
        /// Which coordinate.
        axis: Axis,
        /// Factor, 1/m.
        scale: f64,
    },
}

/// A term as it is read. Serde's own reader of an enum with a tag first keeps whatever an object holds, of whatever size.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TermFields {
    term: TermKind,
    joint: Option<String>,
    scale: Option<f64>,
    index: Option<usize>,
    axis: Option<Axis>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TermKind {
    Position,
    SinPosition,
    CosPosition,
    Velocity,
    PreviousAction,
    Goal,
}

impl TermKind {
    /// What such a term is made of, for whoever left some out or gave more.
    fn takes(self) -> &'static str {
        match self {
            Self::Position => "position takes joint and scale",
            Self::SinPosition => "sin_position takes joint",
            Self::CosPosition => "cos_position takes joint",
            Self::Velocity => "velocity takes joint and scale",
            Self::PreviousAction => "previous_action takes index",
            Self::Goal => "goal takes axis and scale",
        }
    }
}

impl TryFrom<TermFields> for ObservationTerm {
    type Error = String;

    fn try_from(fields: TermFields) -> Result<Self, String> {
        let TermFields {
            term,
            joint,
            scale,
            index,
            axis,
        } = fields;
        Ok(match (term, joint, scale, index, axis) {
            (TermKind::Position, Some(joint), Some(scale), None, None) => Self::Position { joint, scale },
            (TermKind::SinPosition, Some(joint), None, None, None) => Self::SinPosition { joint },
            (TermKind::CosPosition, Some(joint), None, None, None) => Self::CosPosition { joint },
            (TermKind::Velocity, Some(joint), Some(scale), None, None) => Self::Velocity { joint, scale },
            (TermKind::PreviousAction, None, None, Some(index), None) => Self::PreviousAction { index },
            (TermKind::Goal, None, Some(scale), None, Some(axis)) => Self::Goal { axis, scale },
            _ => return Err(format!("an observation term {}, and nothing else", term.takes())),
        })
    }
}

/// A coordinate of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Forward.
    X,
    /// To the left.
    Y,
    /// Up.
    Z,
}

impl Axis {
    /// All, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::X, Self::Y, Self::Z];

    /// Its name, as a spec has it.
    pub const fn name(self) -> char {
        match self {
            Self::X => 'x',
            Self::Y => 'y',
            Self::Z => 'z',
        }
    }

    /// The coordinate's index.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Where the robot may be told to go: a position that somebody gives while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoalSpec {
    /// Frame that goals are given in, the robot's base; a goal in another frame is refused, not transformed.
    pub frame: String,
    /// Least coordinates that the policy was trained for, m.
    pub min: [f64; 3],
    /// Greatest coordinates, m.
    pub max: [f64; 3],
}

/// The layout of the observation: one term a component, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservationSpec {
    /// The terms, in the order in which the network sees them.
    #[serde(deserialize_with = "bounds::terms")]
    pub terms: Vec<ObservationTerm>,
}

/// How one component of the action becomes the command of one joint: `command = offset + scale * action`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionJoint {
    /// Joint name.
    pub joint: String,
    /// Command at action 0, in the interface's unit.
    pub offset: f64,
    /// Change of the command from action 0 to action 1, in the interface's unit; may be negative.
    pub scale: f64,
}

/// The meaning of an action in `[-1, 1]^A`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionSpec {
    /// What the commands are.
    pub interface: CommandInterface,
    /// One entry for each component of the action; commands are published in this order.
    #[serde(deserialize_with = "bounds::commanded")]
    pub joints: Vec<ActionJoint>,
}

/// Everything about the robot that a policy was trained for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotSpec {
    /// Name of the robot.
    pub robot: String,
    /// The joints whose states the policy uses, in the policy's order.
    #[serde(deserialize_with = "bounds::joints")]
    pub joints: Vec<JointSpec>,
    /// Layout of the observation.
    pub observation: ObservationSpec,
    /// Meaning of the action.
    pub action: ActionSpec,
    /// Time between two actions, ns.
    pub control_period_ns: u64,
    /// The goals that it may be given, where the policy observes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<GoalSpec>,
}

impl RobotSpec {
    /// Checks every rule that the control path later relies on.
    ///
    /// # Errors
    /// The first rule that does not hold, as a [`SpecError`].
    pub fn validate(&self) -> Result<(), SpecError> {
        let lists = [
            ("robot name", self.robot.is_empty()),
            ("joints", self.joints.is_empty()),
            ("observation terms", self.observation.terms.is_empty()),
            ("action joints", self.action.joints.is_empty()),
        ];
        if let Some((what, _)) = lists.into_iter().find(|(_, empty)| *empty) {
            return Err(SpecError::Empty { what });
        }
        unique(self.joints.iter().map(|j| &j.name), "joints")?;
        unique(self.action.joints.iter().map(|j| &j.joint), "action joints")?;
        self.joints.iter().try_for_each(JointSpec::validate)?;
        self.goal.iter().try_for_each(GoalSpec::validate)?;
        self.observation
            .terms
            .iter()
            .try_for_each(|term| self.validate_term(term))?;
        self.action
            .joints
            .iter()
            .try_for_each(|joint| self.validate_action_joint(joint))?;
        if self.control_period_ns == 0 {
            return Err(SpecError::OutOfRange {
                what: "control_period_ns",
                name: self.robot.clone(),
                expected: "a positive number of nanoseconds",
                got: 0.0,
            });
        }
        Ok(())
    }

    fn validate_term(&self, term: &ObservationTerm) -> Result<(), SpecError> {
        let place = "an observation term";
        match term {
            ObservationTerm::Position { joint, scale } | ObservationTerm::Velocity { joint, scale } => {
                self.known_joint(joint, place)?;
                finite("scale", joint, *scale)
            }
            ObservationTerm::SinPosition { joint } | ObservationTerm::CosPosition { joint } => {
                self.known_joint(joint, place)
            }
            ObservationTerm::PreviousAction { index } if *index >= self.action_size() => {
                Err(SpecError::PreviousActionIndex {
                    index: *index,
                    actions: self.action_size(),
                })
            }
            ObservationTerm::PreviousAction { .. } => Ok(()),
            ObservationTerm::Goal { .. } if self.goal.is_none() => Err(SpecError::NoGoal),
            ObservationTerm::Goal { scale, .. } => finite("scale", "goal", *scale),
        }
    }

    fn validate_action_joint(&self, joint: &ActionJoint) -> Result<(), SpecError> {
        self.known_joint(&joint.joint, "an action joint")?;
        finite("offset", &joint.joint, joint.offset)?;
        finite("scale", &joint.joint, joint.scale)?;
        finite(
            "the sum of offset and scale",
            &joint.joint,
            joint.offset.abs() + joint.scale.abs(),
        )?;
        if joint.scale == 0.0 {
            return Err(SpecError::OutOfRange {
                what: "scale",
                name: joint.joint.clone(),
                expected: "a number other than 0",
                got: 0.0,
            });
        }
        Ok(())
    }

    fn known_joint(&self, joint: &str, place: &'static str) -> Result<(), SpecError> {
        match self.joint_index(joint) {
            Some(_) => Ok(()),
            None => Err(SpecError::UnknownJoint {
                joint: joint.to_owned(),
                place,
                known: self
                    .joints
                    .iter()
                    .map(|j| j.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Does the policy observe a goal?
    pub fn observes_goal(&self) -> bool {
        let mut terms = self.observation.terms.iter();
        terms.any(|term| matches!(term, ObservationTerm::Goal { .. }))
    }

    /// Position of a joint in [`RobotSpec::joints`].
    pub fn joint_index(&self, name: &str) -> Option<usize> {
        self.joints.iter().position(|joint| joint.name == name)
    }

    /// Number of components of an observation.
    pub fn observation_size(&self) -> usize {
        self.observation.terms.len()
    }

    /// Number of components of an action.
    pub fn action_size(&self) -> usize {
        self.action.joints.len()
    }

    /// Time between two actions, s.
    pub fn control_period(&self) -> f64 {
        self.control_period_ns as f64 * 1e-9
    }

    /// SHA-256 of the spec's canonical JSON, in hexadecimal: equal exactly when every field is equal.
    pub fn hash(&self) -> String {
        // The struct has no map and no value that JSON cannot hold once it is valid (finite numbers), so that
        // serialisation is total and its order is the order of the fields.
        let mut hash = Sha256::new();
        feed_json(&mut hash, self);
        hex::encode(hash.finalize())
    }
}

impl GoalSpec {
    fn validate(&self) -> Result<(), SpecError> {
        if self.frame.is_empty() {
            return Err(SpecError::Empty {
                what: "the goal's frame",
            });
        }
        for (min, max) in self.min.into_iter().zip(self.max) {
            finite("min", "goal", min)?;
            finite("max", "goal", max)?;
            if min > max {
                return Err(SpecError::OutOfRange {
                    what: "min",
                    name: "goal".to_owned(),
                    expected: "a number that is not above max",
                    got: min,
                });
            }
        }
        Ok(())
    }
}

impl JointSpec {
    fn validate(&self) -> Result<(), SpecError> {
        if self.name.is_empty() {
            return Err(SpecError::Empty {
                what: "a joint's name",
            });
        }
        let limits = [
            ("velocity_max", Some(self.velocity_max)),
            ("effort_max", Some(self.effort_max)),
            ("command_rate_max", self.command_rate_max),
            ("acceleration_max", self.acceleration_max),
        ];
        for (what, value) in limits {
            if let Some(got) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(SpecError::OutOfRange {
                    what,
                    name: self.name.clone(),
                    expected: "a finite positive number",
                    got,
                });
            }
        }
        let minimum = self.position_min.unwrap_or(f64::MIN);
        let maximum = self.position_max.unwrap_or(f64::MAX);
        if !(minimum.is_finite() && maximum.is_finite() && minimum < maximum) {
            return Err(SpecError::OutOfRange {
                what: "position_min",
                name: self.name.clone(),
                expected: "a finite number below a finite position_max",
                got: minimum,
            });
        }
        Ok(())
    }
}

fn finite(what: &'static str, name: &str, got: f64) -> Result<(), SpecError> {
    if got.is_finite() {
        return Ok(());
    }
    Err(SpecError::OutOfRange {
        what,
        name: name.to_owned(),
        expected: "a finite number",
        got,
    })
}

fn unique<'a>(names: impl Iterator<Item = &'a String>, place: &'static str) -> Result<(), SpecError> {
    let mut seen = std::collections::BTreeSet::new();
    for joint in names {
        if !seen.insert(joint) {
            return Err(SpecError::DuplicateJoint {
                joint: joint.clone(),
                place,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
