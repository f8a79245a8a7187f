//! Why a joint state was refused, with what was expected and what came.

use thiserror::Error;

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Refusal {
    /// The arrays do not fit together.
    #[error(
        "joint state refused: {field} has {got} values for {expected} names; expected {expected}, or none"
    )]
    WrongLength {
        /// The array.
        field: &'static str,
        /// Number of names.
        expected: usize,
        /// Number of values.
        got: usize,
    },
    /// Neither positions nor velocities, or no names.
    #[error("joint state refused: it carries no names or neither positions nor velocities")]
    Empty,
    /// The same joint twice.
    #[error("joint state refused: joint '{joint}' appears twice; expected each joint once")]
    Duplicate {
        /// The joint.
        joint: String,
    },
    /// A value that no joint can have.
    #[error("joint state refused: {field} of joint '{joint}' is {got}; expected a finite number")]
    NotFinite {
        /// The array.
        field: &'static str,
        /// The joint.
        joint: String,
        /// The value.
        got: f64,
    },
    /// None of the names is one of the policy's.
    #[error("joint state refused: no joint of the policy in it; expected some of [{expected}], got [{got}]")]
    NoKnownJoint {
        /// The policy's joints.
        expected: String,
        /// The names that came.
        got: String,
    },
    /// Older than what is already known.
    #[error("joint state refused: its stamp is {behind_ms:.3} ms behind the newest one of joint '{joint}'")]
    OutOfOrder {
        /// The joint.
        joint: String,
        /// How far behind, ms.
        behind_ms: f64,
    },
    /// Further from the last position than the joint can have moved.
    #[error(
        "joint state refused: joint '{joint}' is {by:.3} rad from where it was, {ms:.1} ms after that; expected at most \
         {expected:.3}; a second one like it is taken as a robot that was set elsewhere"
    )]
    Jump {
        /// The joint.
        joint: String,
        /// Distance from the last position, rad.
        by: f64,
        /// Time since, ms.
        ms: f64,
        /// The largest distance, rad.
        expected: f64,
    },
    /// Ahead of the time that has passed.
    #[error(
        "joint state refused: its stamp is {ahead_ms:.3} ms ahead of joint '{joint}'s last one and of the time since; a \
         second one like it is taken as a clock that was set"
    )]
    Ahead {
        /// The joint.
        joint: String,
        /// How far ahead, ms.
        ahead_ms: f64,
    },
}

impl Refusal {
    /// A small number for each kind, to limit the log by kind.
    pub fn kind(&self) -> usize {
        match self {
            Self::WrongLength { .. } => 0,
            Self::Empty => 1,
            Self::Duplicate { .. } => 2,
            Self::NotFinite { .. } => 3,
            Self::NoKnownJoint { .. } => 4,
            Self::OutOfOrder { .. } => 5,
            Self::Ahead { .. } => 6,
            Self::Jump { .. } => 7,
        }
    }

    /// Number of kinds.
    pub const KINDS: usize = 8;
}
