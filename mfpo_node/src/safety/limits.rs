//! Joint limits and rate limits, those of the bundle's spec and tighter ones by parameter, applied to every command.
//!
//! | interface | range | towards a position limit | change within one period |
//! |---|---|---|---|
//! | position | position limits | may be braked for | velocity limit, `command_rate_max`, acceleration |
//! | velocity | velocity limit | the joint may not pass it within one period | `command_rate_max`, acceleration |
//! | effort | effort limit | no effort further out, nor beyond the velocity limit | `command_rate_max` |
//!
//! The strictest rule wins, and it is the one that is counted. The first command is compared with what the robot does:
//! its position (position), its velocity (velocity), or zero (effort). A position range wins over the acceleration; a position
//! that has come nearer by its own commands is braked before its limit, by no more than the acceleration.
//!
//! Whether the robot is inside its limits is asked of every joint of the spec, also of one that is only observed: that one
//! is held to its own limits of position and velocity, not to the tighter ones by parameter, which say how much of a
//! joint's room commands may use.

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, JointSpec, RobotSpec};
use thiserror::Error;

use super::SafeCommand;

/// Commands that differ by no more than this are the same: rounding is not an intervention.
const SAME: f64 = 1e-9;
/// A robot that is no further outside a limit than this counts as inside: sensors are not exact. rad, rad/s.
const TOLERANCE: f64 = 1e-3;

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The command was no finite number.
    Finite = 0,
    /// The joint's position.
    Position = 1,
    /// The joint's velocity.
    Velocity = 2,
    /// The joint's effort.
    Effort = 3,
    /// How fast the command changes.
    Rate = 4,
    /// How fast the velocity changes.
    Acceleration = 5,
}

impl Rule {
    /// All rules, in their order.
    pub const ALL: [Self; 6] = [
        Self::Finite,
        Self::Position,
        Self::Velocity,
        Self::Effort,
        Self::Rate,
        Self::Acceleration,
    ];

    /// The names of the rules, in their order.
    pub const NAMES: [&'static str; 6] = ["finite", "position", "velocity", "effort", "rate", "acceleration"];
}

/// What the operator allows less of than the bundle's spec does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tightening {
    /// Kept away from each position limit, rad.
    pub position_margin: f64,
    /// Part of the velocity limits, above 0 and up to 1.
    pub velocity_scale: f64,
    /// Part of the effort limits, above 0 and up to 1.
    pub effort_scale: f64,
    /// The largest rate of change of a command, command unit/s; infinite for the spec's.
    pub command_rate_max: f64,
    /// The largest acceleration, rad/s^2; infinite for the spec's.
    pub acceleration_max: f64,
}

impl Tightening {
    /// The spec's own limits.
    pub const NONE: Self = Self {
        position_margin: 0.0,
        velocity_scale: 1.0,
        effort_scale: 1.0,
        command_rate_max: f64::INFINITY,
        acceleration_max: f64::INFINITY,
    };
}

/// A margin that leaves a joint no room.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "parameter limits.position_margin is {margin} rad; expected less than half the range of joint '{joint}', {range} rad"
)]
pub struct TooTight {
    joint: String,
    margin: f64,
    range: f64,
}

/// A robot that is not inside its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outside {
    /// Index of the joint in the spec.
    pub joint: usize,
    /// The limit it breaks.
    pub rule: Rule,
    /// Where it is, rad or rad/s.
    pub got: f64,
    /// The lowest value allowed.
    pub low: f64,
    /// The highest value allowed.
    pub high: f64,
}

/// The limits of one commanded joint.
#[derive(Debug, Clone, Copy)]
struct Actuator {
    joint: usize,
    low: f64,
    high: f64,
    velocity: f64,
    effort: f64,
    rate: f64,
    acceleration: f64,
}

/// Where a joint may be, and how fast, commanded or not.
#[derive(Debug, Clone, Copy)]
struct Room {
    joint: usize,
    low: f64,
    high: f64,
    velocity: f64,
}

/// The limits of a robot, those of commanded joints tightened.
#[derive(Debug, Clone)]
pub struct Limits {
    actuators: Vec<Actuator>,
    /// Of the joints that nobody commands.
    observed: Vec<Room>,
}

impl Limits {
    /// The limits of a valid spec, as far as `tightening` leaves them.
    ///
    /// # Errors
    /// When a joint is left no range.
    pub fn new(spec: &RobotSpec, tightening: &Tightening) -> Result<Self, TooTight> {
        let mut actuators = Vec::with_capacity(spec.action_size());
        for action in &spec.action.joints {
            let index = spec.joint_index(&action.joint);
            let Some((joint, limits)) = index.and_then(|i| Some((i, spec.joints.get(i)?))) else {
                continue;
            };
            actuators.push(Actuator::new(joint, limits, tightening)?);
        }
        let is_observed = |joint: &usize| actuators.iter().all(|actuator| actuator.joint != *joint);
        let joints = spec.joints.iter().enumerate();
        let observed = joints
            .filter(|(joint, _)| is_observed(joint))
            .map(|(joint, limits)| Room::of(joint, limits))
            .collect();
        Ok(Self { actuators, observed })
    }

    /// The room of every joint, those that are commanded first.
    fn rooms(&self) -> impl Iterator<Item = Room> {
        let commanded = self.actuators.iter().map(Actuator::room);
        commanded.chain(self.observed.iter().copied())
    }
}

/// Applies the limits and remembers the last safe command.
#[derive(Debug)]
pub struct SafetyFilter {
    interface: CommandInterface,
    period: f64,
    limits: Limits,
    last: SafeCommand,
    /// Change of each command in the last period.
    steps: Vec<f64>,
    has_commanded: bool,
}

impl SafetyFilter {
    /// Applies `limits` of a robot.
    pub fn new(spec: &RobotSpec, limits: Limits) -> Self {
        let size = spec.action_size();
        Self {
            interface: spec.action.interface,
            period: spec.control_period(),
            limits,
            last: SafeCommand {
                values: vec![0.0; size],
                rules: vec![None; size],
            },
            steps: vec![0.0; size],
            has_commanded: false,
        }
    }

    /// Other limits from the next command on; those of before are left in `limits`.
    pub fn exchange_limits(&mut self, limits: &mut Limits) {
        std::mem::swap(&mut self.limits, limits);
    }

    /// The last command that was let through, once there is one.
    pub fn last(&self) -> Option<&SafeCommand> {
        self.has_commanded.then_some(&self.last)
    }

    /// Forgets the last command: the next one is compared with what the robot does.
    pub fn restart(&mut self) {
        self.has_commanded = false;
    }

    /// What the next command is compared with, joint by joint: the last one, or what the robot does.
    pub fn references<'a>(&'a self, state: &'a RobotState) -> impl Iterator<Item = f64> + 'a {
        let actuators = self.limits.actuators.iter().zip(&self.last.values);
        actuators.map(|(actuator, last)| self.reference(actuator, *last, state))
    }

    /// Is the robot inside its limits, each of its joints?
    ///
    /// # Errors
    /// The first joint that is not; one that is commanded before one that is not.
    pub fn inside(&self, state: &RobotState) -> Result<(), Outside> {
        self.limits.rooms().try_for_each(|room| room.holds(state))
    }

    /// Brings `wanted` (`[A]`) inside every limit. A `wanted` that is not finite is the caller's to catch; here it
    /// becomes the last safe command.
    pub fn enforce(&mut self, wanted: &[f64], state: &RobotState) -> &SafeCommand {
        for (i, actuator) in self.limits.actuators.iter().enumerate() {
            let (Some(last), Some(step)) = (self.last.values.get(i).copied(), self.steps.get(i).copied())
            else {
                continue;
            };
            let reference = self.reference(actuator, last, state);
            let asked = wanted.get(i).copied().filter(|w| w.is_finite());
            let moved = Motion {
                reference,
                step: if self.has_commanded { step } else { 0.0 },
                position: state.positions.get(actuator.joint).copied().unwrap_or(0.0),
                velocity: state.velocities.get(actuator.joint).copied().unwrap_or(0.0),
                period: self.period,
            };
            let start = Clamped {
                value: asked.unwrap_or(reference),
                rule: asked.is_none().then_some(Rule::Finite),
            };
            let mut safe = actuator.enforce(self.interface, start, &moved);
            if asked.is_some_and(|asked| (safe.value - asked).abs() <= SAME) {
                // One rule took away what another had given.
                safe.rule = None;
            }
            for (slot, value) in [
                (&mut self.last.values, safe.value),
                (&mut self.steps, safe.value - reference),
            ] {
                if let Some(slot) = slot.get_mut(i) {
                    *slot = value;
                }
            }
            if let Some(rule) = self.last.rules.get_mut(i) {
                *rule = safe.rule;
            }
        }
        self.has_commanded = true;
        &self.last
    }

    /// The end of a stop that may not take longer: a velocity and an effort become zero at once, past their rates; a
    /// position stays where it is commanded.
    pub fn cut(&mut self) -> &SafeCommand {
        if self.interface != CommandInterface::Position {
            self.last.values.fill(0.0);
        }
        self.last.rules.fill(None);
        self.steps.fill(0.0);
        &self.last
    }

    fn reference(&self, actuator: &Actuator, last: f64, state: &RobotState) -> f64 {
        let of = |values: &[f64]| values.get(actuator.joint).copied().unwrap_or(0.0);
        match (self.has_commanded, self.interface) {
            (true, _) => last,
            (false, CommandInterface::Position) => of(state.positions.as_slice()),
            (false, CommandInterface::Velocity) => of(state.velocities.as_slice()),
            (false, CommandInterface::Effort) => 0.0,
        }
    }
}

/// Where a joint and its command are.
struct Motion {
    reference: f64,
    step: f64,
    position: f64,
    velocity: f64,
    period: f64,
}

/// A command on its way through the limits, and the last rule that altered it.
#[derive(Debug, Clone, Copy)]
struct Clamped {
    value: f64,
    rule: Option<Rule>,
}

impl Clamped {
    fn within(self, low: f64, high: f64, rule: Rule) -> Self {
        let value = self.value.clamp(low, high);
        let is_altered = (value - self.value).abs() > SAME;
        Self {
            value,
            rule: if is_altered { Some(rule) } else { self.rule },
        }
    }

    /// No further from `centre` than `distance`.
    fn near(self, centre: f64, distance: f64, rule: Rule) -> Self {
        self.within(centre - distance, centre + distance, rule)
    }
}

/// The fastest that a joint may be told to move for the next period, and still be braked by `acceleration` within
/// `distance` afterwards: `v T + v^2 / 2 a = d`.
///
/// Neither limit is broken by going by it. The next bound is that of `d - v T >= v^2 / 2 a`, which is
/// `sqrt((a T)^2 + v^2) - a T >= v - a T`: braking by no more than `a` always keeps inside the bound. And braking by `a T`
/// a period from `v = (n + f) a T`, n whole and 0 <= f < 1, takes `(n^2 + n + 2 n f + 2 f) / 2` of `a T^2`, where the bound
/// leaves `(n + f)^2 / 2 + n + f`: more, by `(n + f^2) / 2`.
fn brakable(acceleration: f64, period: f64, distance: f64) -> f64 {
    let change = acceleration * period;
    ((change.powi(2) + 2.0 * acceleration * distance.max(0.0)).sqrt() - change).max(0.0)
}

impl Actuator {
    fn new(joint: usize, limits: &JointSpec, tightening: &Tightening) -> Result<Self, TooTight> {
        let margin = tightening.position_margin;
        let low = limits.position_min.map_or(f64::NEG_INFINITY, |low| low + margin);
        let high = limits.position_max.map_or(f64::INFINITY, |high| high - margin);
        if low >= high {
            return Err(TooTight {
                joint: limits.name.clone(),
                margin,
                range: high - low + 2.0 * margin,
            });
        }
        Ok(Self {
            joint,
            low,
            high,
            velocity: limits.velocity_max * tightening.velocity_scale,
            effort: limits.effort_max * tightening.effort_scale,
            rate: limits
                .command_rate_max
                .unwrap_or(f64::INFINITY)
                .min(tightening.command_rate_max),
            acceleration: limits
                .acceleration_max
                .unwrap_or(f64::INFINITY)
                .min(tightening.acceleration_max),
        })
    }

    /// The rules in the order in which they apply; a later one wins. A position is brought back into its range only as
    /// fast as the rate allows; the range of velocity and effort always holds.
    fn enforce(&self, interface: CommandInterface, asked: Clamped, at: &Motion) -> Clamped {
        match interface {
            CommandInterface::Position => self.position(asked, at),
            CommandInterface::Velocity => self.velocity(asked, at),
            CommandInterface::Effort => self.effort(asked, at),
        }
    }

    fn position(&self, asked: Clamped, at: &Motion) -> Clamped {
        let mut command = asked;
        if self.acceleration.is_finite() {
            let change = self.acceleration * at.period * at.period;
            let stops = |distance: f64| at.period * brakable(self.acceleration, at.period, distance);
            let (back, ahead) = (stops(at.reference - self.low), stops(self.high - at.reference));
            command = command
                .near(at.reference + at.step, change, Rule::Acceleration)
                .within(at.reference - back, at.reference + ahead, Rule::Acceleration);
        }
        command
            .within(self.low, self.high, Rule::Position)
            .near(at.reference, self.velocity * at.period, Rule::Velocity)
            .near(at.reference, self.rate * at.period, Rule::Rate)
    }

    fn velocity(&self, asked: Clamped, at: &Motion) -> Clamped {
        let (below, above) = (at.position - self.low, self.high - at.position);
        let mut command = asked
            .near(at.reference, self.rate * at.period, Rule::Rate)
            .near(at.reference, self.acceleration * at.period, Rule::Acceleration)
            .near(0.0, self.velocity, Rule::Velocity);
        let deceleration = self.acceleration.min(self.rate);
        if deceleration.is_finite() {
            let stops = |distance: f64| brakable(deceleration, at.period, distance);
            command = command.within(-stops(below), stops(above), Rule::Position);
        }
        command
            // The joint may not pass a position limit within one period.
            .within(
                -below.max(0.0) / at.period,
                above.max(0.0) / at.period,
                Rule::Position,
            )
    }

    fn effort(&self, asked: Clamped, at: &Motion) -> Clamped {
        let open = |is_shut: bool| if is_shut { 0.0 } else { f64::INFINITY };
        let is_high = at.position >= self.high;
        let is_low = at.position <= self.low;
        asked
            .near(at.reference, self.rate * at.period, Rule::Rate)
            .near(0.0, self.effort, Rule::Effort)
            .within(
                -open(at.velocity <= -self.velocity),
                open(at.velocity >= self.velocity),
                Rule::Velocity,
            )
            .within(-open(is_low), open(is_high), Rule::Position)
    }

    fn room(&self) -> Room {
        Room {
            joint: self.joint,
            low: self.low,
            high: self.high,
            velocity: self.velocity,
        }
    }
}

impl Room {
    /// What a joint's own limits leave it.
    fn of(joint: usize, limits: &JointSpec) -> Self {
        Self {
            joint,
            low: limits.position_min.unwrap_or(f64::NEG_INFINITY),
            high: limits.position_max.unwrap_or(f64::INFINITY),
            velocity: limits.velocity_max,
        }
    }

    fn holds(&self, state: &RobotState) -> Result<(), Outside> {
        let of = |values: &[f64]| values.get(self.joint).copied().unwrap_or(0.0);
        let ranges = [
            (
                Rule::Position,
                of(state.positions.as_slice()),
                self.low,
                self.high,
            ),
            (
                Rule::Velocity,
                of(state.velocities.as_slice()),
                -self.velocity,
                self.velocity,
            ),
        ];
        for (rule, got, low, high) in ranges {
            if got < low - TOLERANCE || got > high + TOLERANCE {
                return Err(Outside {
                    joint: self.joint,
                    rule,
                    got,
                    low,
                    high,
                });
            }
        }
        Ok(())
    }
}
