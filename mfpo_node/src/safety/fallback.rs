//! What the robot is told when the policy must not act. It fits the command interface:
//! - position: hold the last safe command;
//! - velocity: ramp to zero;
//! - effort: damping, `-d * velocity`, of each joint whose velocity is fresh; zero for the others.

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

/// A fallback that would be dangerous with the interface.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error("fallback '{got:?}' does not fit commands in {unit}; expected auto or one of {expected}")]
pub struct DoesNotFit {
    got: FallbackChoice,
    unit: &'static str,
    expected: &'static str,
}

#[derive(Debug, Clone, Copy)]
struct Actuator {
    /// Index of the joint in the spec.
    joint: usize,
    /// Largest change of a velocity command in one period, rad/s.
    ramp: f64,
    /// N m s/rad.
    damping: f64,
}

/// Makes the commands of the fallback.
#[derive(Debug)]
pub struct Fallback {
    choice: FallbackChoice,
    actuators: Vec<Actuator>,
}

impl Fallback {
    /// The fallback of a robot. `damping` (N m s/rad) of 0 means full effort at full speed, joint by joint.
    ///
    /// # Errors
    /// When `choice` does not fit the interface: holding a velocity or an effort, or zero as a position, would
    /// move the robot.
    pub fn new(spec: &RobotSpec, choice: FallbackChoice, damping: f64) -> Result<Self, DoesNotFit> {
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
        let choice = fitting.map_err(|expected| DoesNotFit {
            got: choice,
            unit: interface.unit(),
            expected,
        })?;
        Ok(Self {
            choice,
            actuators: actuators(spec, damping),
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
                FallbackChoice::Damp if is_fresh => -actuator.damping * velocity,
                FallbackChoice::Damp | FallbackChoice::Zero => 0.0,
            };
        }
    }

    /// Writes the next command on the way to a stop that nothing will follow: a position is held, a velocity ramps
    /// down, an effort is taken away (damping needs somebody to go on measuring). Returns the command it ends at.
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

fn actuators(spec: &RobotSpec, damping: f64) -> Vec<Actuator> {
    spec.action
        .joints
        .iter()
        .filter_map(|action| {
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
            })
        })
        .collect()
}
