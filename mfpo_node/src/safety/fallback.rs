//! What the robot is told when the policy must not act. It fits the command interface:
//! - position: hold the last safe command;
//! - velocity: ramp to zero;
//! - effort: `posture - d * velocity` of each joint whose velocity is fresh, `posture` of the others. The posture's effort
//!   is what the operator states, as a rule what holds the robot up at rest; zero where nothing is stated.
//!
//! A stop that nothing will follow (`Fallback::stop`) ends at zero effort all the same: an effort that nobody takes away
//! any more may hold a robot up or throw it about, and nobody would see which.

use std::fmt;

use mfpo_policy::spec::{CommandInterface, RobotSpec};
use thiserror::Error;

/// A velocity command reaches zero from the joint's top speed within this time, s.
const RAMP_SECONDS: f64 = 0.3;

/// What to do, as the parameter `fallback` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackChoice {
    /// What fits the interface: hold, ramp or damp.
    Auto,
    /// Repeat the last safe position command.
    Hold,
    /// Bring the velocity command to zero steadily.
    Ramp,
    /// Brake each joint in proportion to its velocity.
    Damp,
    /// Command zero velocity or zero effort at once.
    Zero,
}

impl FallbackChoice {
    /// The names of the parameter's values.
    pub const NAMES: [&'static str; 5] = ["auto", "hold", "ramp", "damp", "zero"];

    /// The choice of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "auto" => Self::Auto,
            "hold" => Self::Hold,
            "ramp" => Self::Ramp,
            "damp" => Self::Damp,
            "zero" => Self::Zero,
            _ => return None,
        })
    }
}

impl fmt::Display for FallbackChoice {
    /// As the parameter says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Hold => "hold",
            Self::Ramp => "ramp",
            Self::Damp => "damp",
            Self::Zero => "zero",
        })
    }
}

/// A fallback that would be dangerous with the interface, or an effort that is none of this robot.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DoesNotFit {
    /// The choice would move the robot.
    #[error("fallback '{got}' does not fit commands in {unit}; expected auto or one of {expected}")]
    Choice {
        /// The choice that came.
        got: FallbackChoice,
        /// Unit of the robot's commands.
        unit: &'static str,
        /// What fits.
        expected: &'static str,
    },
    /// An effort is stated that this fallback would never command.
    #[error(
        "parameter fallback_effort is set, but the fallback '{choice}' of commands in {unit} uses none; expected an empty \
         list, or the fallback damp of a robot with effort commands"
    )]
    EffortUnused {
        /// What the fallback does.
        choice: FallbackChoice,
        /// Unit of the robot's commands.
        unit: &'static str,
    },
    /// Not one effort for each action joint.
    #[error(
        "parameter fallback_effort holds {got} numbers; expected {expected}, one for each of [{joints}], or none"
    )]
    EffortCount {
        /// How many came.
        got: usize,
        /// Size of the action.
        expected: usize,
        /// The action joints, separated by commas.
        joints: String,
    },
    /// An effort that is no number.
    #[error("parameter fallback_effort of joint '{joint}' is {got} N m; expected a finite number")]
    EffortNotFinite {
        /// The joint.
        joint: String,
        /// What came.
        got: f64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Actuator {
    /// Index of the joint in the spec.
    joint: usize,
    /// Largest change of a velocity command in one period, rad/s.
    ramp: f64,
    /// N m s/rad.
    damping: f64,
    /// Effort where the joint is at rest, or its velocity is not known, N m.
    posture: f64,
}

/// Makes the commands of the fallback.
#[derive(Debug)]
pub struct Fallback {
    choice: FallbackChoice,
    actuators: Vec<Actuator>,
}

impl Fallback {
    /// The fallback of a robot. `damping` (N m s/rad) of 0 means full effort at full speed, joint by joint; `posture` (N m,
    /// in the order of the action joints) is what damping is added to, empty is zero.
    ///
    /// # Errors
    /// When `choice` does not fit the interface: holding a velocity or an effort, or zero as a position, would
    /// move the robot. When `posture` does not fit the robot, or would never be commanded.
    pub fn new(
        spec: &RobotSpec,
        choice: FallbackChoice,
        damping: f64,
        posture: &[f64],
    ) -> Result<Self, DoesNotFit> {
        use FallbackChoice::{Auto, Damp, Hold, Ramp, Zero};
        let interface = spec.action.interface;
        let fitting = match (interface, choice) {
            (CommandInterface::Position, Auto | Hold) => Ok(Hold),
            (CommandInterface::Position, _) => Err("hold"),
            (CommandInterface::Velocity, Auto | Ramp) => Ok(Ramp),
            (CommandInterface::Velocity, Zero) => Ok(Zero),
            (CommandInterface::Velocity, _) => Err("ramp, zero"),
            (CommandInterface::Effort, Auto | Damp) => Ok(Damp),
            (CommandInterface::Effort, Zero) => Ok(Zero),
            (CommandInterface::Effort, _) => Err("damp, zero"),
        };
        let choice = fitting.map_err(|expected| DoesNotFit::Choice {
            got: choice,
            unit: interface.unit(),
            expected,
        })?;
        check_posture(spec, choice, posture)?;
        Ok(Self {
            choice,
            actuators: actuators(spec, damping, posture),
        })
    }

    /// Writes the command into `out` (`[A]`). `last` is the last safe command; `velocities` and `fresh` are in the
    /// order of the spec's joints.
    pub fn command(&self, last: &[f64], velocities: &[f64], fresh: &[bool], out: &mut [f64]) {
        for (i, (slot, actuator)) in out.iter_mut().zip(&self.actuators).enumerate() {
            let last = last.get(i).copied().unwrap_or(0.0);
            let is_fresh = fresh.get(actuator.joint).copied().unwrap_or(false);
            let velocity = velocities.get(actuator.joint).copied().unwrap_or(0.0);
            *slot = match self.choice {
                FallbackChoice::Auto | FallbackChoice::Hold => last,
                FallbackChoice::Ramp => last - last.clamp(-actuator.ramp, actuator.ramp),
                FallbackChoice::Damp if is_fresh => actuator.posture - actuator.damping * velocity,
                FallbackChoice::Damp => actuator.posture,
                FallbackChoice::Zero => 0.0,
            };
        }
    }

    /// Writes the next command on the way to a stop that nothing will follow: a position is held, a velocity ramps
    /// down, an effort is taken away, the posture's too (both need somebody to go on measuring). Returns the command it
    /// ends at.
    pub fn stop(&self, last: &[f64], out: &mut [f64]) -> StopAt {
        for (i, (slot, actuator)) in out.iter_mut().zip(&self.actuators).enumerate() {
            let last = last.get(i).copied().unwrap_or(0.0);
            *slot = match self.choice {
                FallbackChoice::Auto | FallbackChoice::Hold => last,
                FallbackChoice::Ramp => last - last.clamp(-actuator.ramp, actuator.ramp),
                FallbackChoice::Damp | FallbackChoice::Zero => 0.0,
            };
        }
        match self.choice {
            FallbackChoice::Auto | FallbackChoice::Hold => StopAt::Here,
            _ => StopAt::Zero,
        }
    }
}

/// Where a stop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAt {
    /// At the command that holds already.
    Here,
    /// At zero.
    Zero,
}

fn check_posture(spec: &RobotSpec, choice: FallbackChoice, posture: &[f64]) -> Result<(), DoesNotFit> {
    let joints = &spec.action.joints;
    if posture.is_empty() {
        return Ok(());
    }
    if choice != FallbackChoice::Damp {
        let unit = spec.action.interface.unit();
        return Err(DoesNotFit::EffortUnused { choice, unit });
    }
    if posture.len() != joints.len() {
        let names: Vec<_> = joints.iter().map(|action| action.joint.as_str()).collect();
        return Err(DoesNotFit::EffortCount {
            got: posture.len(),
            expected: joints.len(),
            joints: names.join(", "),
        });
    }
    match joints.iter().zip(posture).find(|(_, effort)| !effort.is_finite()) {
        None => Ok(()),
        Some((action, got)) => Err(DoesNotFit::EffortNotFinite {
            joint: action.joint.clone(),
            got: *got,
        }),
    }
}

fn actuators(spec: &RobotSpec, damping: f64, posture: &[f64]) -> Vec<Actuator> {
    spec.action
        .joints
        .iter()
        .enumerate()
        .filter_map(|(i, action)| {
            let joint = spec.joint_index(&action.joint)?;
            let limits = spec.joints.get(joint)?;
            let rate = limits
                .command_rate_max
                .unwrap_or(limits.velocity_max / RAMP_SECONDS);
            let automatic = limits.effort_max / limits.velocity_max;
            Some(Actuator {
                joint,
                ramp: rate * spec.control_period(),
                damping: if damping > 0.0 { damping } else { automatic },
                posture: posture.get(i).copied().unwrap_or(0.0),
            })
        })
        .collect()
}
