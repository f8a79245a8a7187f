//! Joint limits and rate limits of the bundle's spec, applied to every command.
//!
//! | interface | range | towards a position limit | change within one period |
//! |---|---|---|---|
//! | position | position limits | - | velocity limit, and `command_rate_max` |
//! | velocity | velocity limit | the joint may not pass it within one period | `command_rate_max` |
//! | effort | effort limit | no effort further out, nor beyond the velocity limit | `command_rate_max` |
//!
//! The strictest rule wins. The first command is compared with what the robot does: its position (position), its
//! velocity (velocity), or zero (effort).

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, JointSpec, RobotSpec};

use super::SafeCommand;

/// Commands that differ by no more than this are the same: rounding is not an intervention.
const SAME: f64 = 1e-9;

#[derive(Debug, Clone)]
struct Actuator {
    joint: usize,
    limits: JointSpec,
}

/// Applies the limits and remembers the last safe command.
#[derive(Debug)]
pub struct SafetyFilter {
    interface: CommandInterface,
    period: f64,
    actuators: Vec<Actuator>,
    last: SafeCommand,
    has_commanded: bool,
}

impl SafetyFilter {
    /// The limits of a valid spec.
    pub fn new(spec: &RobotSpec) -> Self {
        let actuator = |name: &String| {
            let joint = spec.joint_index(name)?;
            let limits = spec.joints.get(joint)?.clone();
            Some(Actuator { joint, limits })
        };
        Self {
            interface: spec.action.interface,
            period: spec.control_period(),
            actuators: spec
                .action
                .joints
                .iter()
                .filter_map(|a| actuator(&a.joint))
                .collect(),
            last: SafeCommand {
                values: vec![0.0; spec.action_size()],
                interventions: 0,
            },
            has_commanded: false,
        }
    }

    /// The last command that was let through, once there is one.
    pub fn last(&self) -> Option<&SafeCommand> {
        self.has_commanded.then_some(&self.last)
    }

    /// Brings `wanted` (`[A]`) inside every limit. A `wanted` that is not finite is the caller's to catch; here it
    /// becomes the last safe command.
    pub fn enforce(&mut self, wanted: &[f64], state: &RobotState) -> &SafeCommand {
        let mut interventions = 0;
        for (i, actuator) in self.actuators.iter().enumerate() {
            let Some(slot) = self.last.values.get_mut(i) else {
                continue;
            };
            let position = state.positions.get(actuator.joint).copied().unwrap_or(0.0);
            let velocity = state.velocities.get(actuator.joint).copied().unwrap_or(0.0);
            let reference = match (self.has_commanded, self.interface) {
                (true, _) => *slot,
                (false, CommandInterface::Position) => position,
                (false, CommandInterface::Velocity) => velocity,
                (false, CommandInterface::Effort) => 0.0,
            };
            let asked = wanted
                .get(i)
                .copied()
                .filter(|w| w.is_finite())
                .unwrap_or(reference);
            let in_range = actuator.in_range(self.interface, asked, reference, self.period);
            let safe = actuator.within_motion(self.interface, in_range, (position, velocity), self.period);
            interventions += u32::from((safe - asked).abs() > SAME);
            *slot = safe;
        }
        self.last.interventions = interventions;
        self.has_commanded = true;
        &self.last
    }
}

impl Actuator {
    /// Rate first, then range: a robot that starts outside its range is brought back at the allowed rate only
    /// where the rate allows; the range of velocity and effort always holds.
    fn in_range(&self, interface: CommandInterface, asked: f64, reference: f64, period: f64) -> f64 {
        let limits = &self.limits;
        let rate = match interface {
            CommandInterface::Position => limits
                .command_rate_max
                .map_or(limits.velocity_max, |rate| rate.min(limits.velocity_max)),
            _ => limits.command_rate_max.unwrap_or(f64::INFINITY),
        };
        let (low, high) = match interface {
            CommandInterface::Position => (
                limits.position_min.unwrap_or(f64::NEG_INFINITY),
                limits.position_max.unwrap_or(f64::INFINITY),
            ),
            CommandInterface::Velocity => (-limits.velocity_max, limits.velocity_max),
            CommandInterface::Effort => (-limits.effort_max, limits.effort_max),
        };
        let step = rate * period;
        match interface {
            CommandInterface::Position => asked.clamp(low, high).clamp(reference - step, reference + step),
            _ => asked.clamp(reference - step, reference + step).clamp(low, high),
        }
    }

    /// Never further towards a limit that is reached.
    fn within_motion(
        &self,
        interface: CommandInterface,
        command: f64,
        (position, velocity): (f64, f64),
        period: f64,
    ) -> f64 {
        let limits = &self.limits;
        let below = position - limits.position_min.unwrap_or(f64::NEG_INFINITY);
        let above = limits.position_max.unwrap_or(f64::INFINITY) - position;
        match interface {
            CommandInterface::Position => command,
            CommandInterface::Velocity => command.clamp(-below.max(0.0) / period, above.max(0.0) / period),
            CommandInterface::Effort => {
                let too_high = above <= 0.0 || velocity >= limits.velocity_max;
                let too_low = below <= 0.0 || velocity <= -limits.velocity_max;
                let high = if too_high { 0.0 } else { f64::INFINITY };
                let low = if too_low { 0.0 } else { f64::NEG_INFINITY };
                command.clamp(low, high)
            }
        }
    }
}
