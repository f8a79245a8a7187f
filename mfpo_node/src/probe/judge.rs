//! What a probe has found: each joint's trace against what was sent to it, on a thread that has time.
//!
//! How much of what was sent shows at joint k is the factor r in `moved_k(t) = c + r e(t)`, by least squares. `e` is what
//! the motion should be: the command (position), its sum (velocity), its double sum (effort; there, beside a drift
//! `c + d t + f t^2`, which is gravity's). A right joint has r near 1 (effort: above 0), all others near 0.

use std::fmt;

use mfpo_policy::spec::CommandInterface;

use super::trace::Trace;
use super::{Mode, Probe, Target};

/// A response that is smaller than this part of what was expected is none, however still the joints are.
const NOTHING: f64 = 2e-4;
/// The joint that was told to move shows less than this part of what another one shows: the other was meant.
const MINOR: f64 = 0.2;
/// A joint that moves by this part of what another one was told to is not at rest.
const ALONG: f64 = 0.5;
/// Factors that are as good as 1: a command, and an operator's hand.
const RIGHT: (f64, f64) = (0.5, 2.0);
const RIGHT_BY_HAND: (f64, f64) = (0.3, 3.0);
/// How near a factor must be to that of a unit, as a factor.
const NEAR: f64 = 1.6;
const NEAR_BY_HAND: f64 = 3.0;

/// Factors of units that robots are given in by mistake.
const UNITS: [(f64, &str); 3] = [
    (180.0 / std::f64::consts::PI, "degrees instead of radians"),
    (1000.0, "millimetres instead of metres"),
    (0.5 / std::f64::consts::PI, "revolutions instead of radians"),
];

/// What is wrong with a joint.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// Nothing moves when it is told to.
    Dead,
    /// Nothing has moved when an operator was to move it; whether anybody tried, nobody knows.
    Unmoved,
    /// Another joint moves in its place.
    Swapped {
        /// The joint that moves.
        with: String,
        /// Does it move the other way as well?
        is_backwards: bool,
    },
    /// It moves the other way.
    Flipped,
    /// It moves too far, or too little.
    Scale {
        /// How many times as far as expected.
        factor: f64,
        /// The unit that would explain it.
        unit: Option<String>,
    },
    /// Another joint moves as well.
    MovesAlong {
        /// The joint that moves along.
        joint: String,
        /// As part of what was commanded.
        part: f64,
    },
    /// Its velocity is not how its position changes.
    Velocity {
        /// The velocity as a multiple of the change of the position.
        factor: f64,
        /// The unit that would explain it.
        unit: Option<String>,
    },
    /// It was told to stay, and moved.
    MovedByItself {
        /// How far.
        by: f64,
    },
    /// There is not enough room to move it.
    NoRoom,
    /// The probe ended before.
    NotProbed,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let explained = |unit: &Option<String>| match unit {
            Some(unit) => format!(": {unit}"),
            None => String::new(),
        };
        match self {
            Self::Dead => write!(f, "no joint moved when it was to move: dead, or not connected"),
            Self::Unmoved => write!(
                f,
                "no joint moved when it was to be moved by hand: nobody moved it in time (parameter probe.by_hand_timeout), or \
                 it is dead, or not connected"
            ),
            Self::Swapped { with, is_backwards } => {
                let backwards = if *is_backwards { ", backwards" } else { "" };
                write!(
                    f,
                    "joint '{with}' moved in its place{backwards}: the two are swapped"
                )
            }
            Self::Flipped => write!(f, "it moved backwards: its sign is flipped"),
            Self::Scale { factor, unit } => {
                write!(
                    f,
                    "it moved {factor:.3} times as far as expected{}",
                    explained(unit)
                )
            }
            Self::MovesAlong { joint, part } => {
                write!(f, "joint '{joint}' moved along, {part:.2} times as far")
            }
            Self::Velocity { factor, unit } => write!(
                f,
                "its velocity is {factor:.3} times the change of its position{}",
                explained(unit)
            ),
            Self::MovedByItself { by } => {
                write!(f, "it moved by {by:.3} when it was told to stay")
            }
            Self::NoRoom => write!(f, "not moved: within its limits there is no room on either side"),
            Self::NotProbed => write!(f, "not probed: the probe ended before"),
        }
    }
}

/// What was found at one joint.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The joint.
    pub joint: String,
    /// What is wrong; none where it is as the spec says.
    pub finding: Option<Finding>,
    /// How far it was to move; for efforts, the least that counts.
    pub expected: f64,
    /// How far it moved.
    pub measured: f64,
}

/// What was found at each joint of a probe.
pub fn judge(probe: &Probe) -> Vec<Outcome> {
    let last = probe.current;
    let pairs = probe.targets.iter().zip(&probe.traces).enumerate();
    let outcomes = pairs.map(|(i, (target, trace))| {
        let is_reached = trace.rows() > 0 && (i < last || probe.current >= probe.targets.len());
        let mut outcome = Outcome {
            joint: target.name.clone(),
            finding: None,
            expected: 0.0,
            measured: 0.0,
        };
        if probe.is_restless && i == last {
            restless(probe, target, trace, &mut outcome);
        } else if !is_reached {
            outcome.finding = Some(Finding::NotProbed);
        } else if trace.moves_from().is_none() {
            outcome.finding = Some(if probe.mode == Mode::Move {
                Finding::NoRoom
            } else {
                Finding::NotProbed
            });
        } else {
            match probe.mode {
                Mode::Move => moved(probe, target, trace, &mut outcome),
                Mode::ByHand => by_hand(probe, target, trace, &mut outcome),
            }
        }
        outcome
    });
    outcomes.collect()
}

/// How much of a motion shows at one joint.
#[derive(Debug, Clone, Copy)]
struct Response {
    /// As a multiple of what was expected, with its sign.
    factor: f64,
    /// How far that is.
    size: f64,
    /// How much it moves when nothing is commanded.
    noise: f64,
}

impl Response {
    fn shows(&self) -> bool {
        self.size > 4.0 * self.noise
    }
}

fn moved(probe: &Probe, target: &Target, trace: &Trace, outcome: &mut Outcome) {
    let begin = trace.moves_from().unwrap_or(0);
    let expected = expected(probe, trace, begin);
    let drifts = match probe.interface {
        CommandInterface::Effort => 3,
        CommandInterface::Position | CommandInterface::Velocity => 1,
    };
    let basis = Basis::new(expected.len(), drifts);
    let expected = basis.without(expected);
    let size = extent(&expected);
    let responses: Vec<Response> = (0..probe.names.len())
        .map(|joint| {
            let moved = basis.without(trace.moved(joint).skip(begin).collect());
            let factor = share(&moved, &expected);
            let rest: Vec<f64> = trace.moved(joint).take(begin).collect();
            let noise = extent(&Basis::new(rest.len(), 2).without(rest));
            Response {
                factor,
                size: factor.abs() * size,
                noise,
            }
        })
        .collect();
    let Some(own) = responses.get(target.joint).copied() else {
        return;
    };
    let is_effort = probe.interface == CommandInterface::Effort;
    let least = if is_effort { 0.0 } else { NOTHING * size };
    outcome.expected = if is_effort {
        (4.0 * own.noise).max(1e-9)
    } else {
        size
    };
    outcome.measured = own.size * own.factor.signum();
    outcome.finding = from_responses(probe, target, &responses, least.max(1e-9))
        .or_else(|| {
            if is_effort {
                return (own.factor < 0.0).then_some(Finding::Flipped);
            }
            scale(own.factor, RIGHT, NEAR, true)
        })
        .or_else(|| velocity(probe.period, target, trace, begin))
        .or_else(|| {
            if is_effort {
                None
            } else {
                moves_along(probe, target, &responses)
            }
        });
}

/// Nothing moves, or another joint does.
fn from_responses(probe: &Probe, target: &Target, responses: &[Response], least: f64) -> Option<Finding> {
    let own = responses.get(target.joint)?;
    let others = responses
        .iter()
        .enumerate()
        .filter(|(joint, _)| *joint != target.joint);
    let largest = others.max_by(|(_, a), (_, b)| a.size.total_cmp(&b.size));
    if let Some((joint, other)) = largest
        && other.shows()
        && other.size > least
        && own.size < MINOR * other.size
    {
        return Some(Finding::Swapped {
            with: probe.names.get(joint).cloned().unwrap_or_default(),
            is_backwards: other.factor < 0.0,
        });
    }
    (!own.shows() || own.size <= least).then_some(Finding::Dead)
}

fn scale(factor: f64, (low, high): (f64, f64), near: f64, is_commanded: bool) -> Option<Finding> {
    let size = factor.abs();
    if !(low..=high).contains(&size) {
        return Some(Finding::Scale {
            factor,
            unit: unit(size, near, is_commanded),
        });
    }
    (factor < 0.0).then_some(Finding::Flipped)
}

/// The unit whose factor is nearest; of the states, or of the command, which then is the other way round.
fn unit(factor: f64, near: f64, is_commanded: bool) -> Option<String> {
    let distance = |of: f64| (factor / of).ln().abs();
    let of_states = UNITS.map(|(of, name)| (distance(of), format!("its state is in {name}")));
    let of_commands = UNITS.map(|(of, name)| (distance(1.0 / of), format!("its command is taken as {name}")));
    let of_commands = of_commands.into_iter().filter(|_| is_commanded);
    let nearest = of_states
        .into_iter()
        .chain(of_commands)
        .min_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest
        .filter(|(distance, _)| *distance < near.ln())
        .map(|(_, name)| name)
}

/// A factor that a unit explains.
pub(super) fn scaled(factor: f64) -> Option<Finding> {
    let unit = unit(factor.abs(), NEAR, true)?;
    Some(Finding::Scale {
        factor,
        unit: Some(unit),
    })
}

/// The velocity against the change of the position.
fn velocity(period: f64, target: &Target, trace: &Trace, begin: usize) -> Option<Finding> {
    let moved: Vec<f64> = trace.moved(target.joint).skip(begin).collect();
    let velocities: Vec<f64> = trace.velocities(target.joint).skip(begin).collect();
    // How fast it moves between two rows, against the average of what it says at both.
    let changes: Vec<f64> = moved
        .windows(2)
        .filter_map(|w| Some(w.get(1)? - w.first()?))
        .collect();
    let averages = velocities.windows(2);
    let said: Vec<f64> = averages
        .filter_map(|w| Some(0.5 * (w.get(1)? + w.first()?)))
        .collect();
    let (sums, changes) = (running_sum(&said), running_sum(&changes));
    let basis = Basis::new(sums.len(), 1);
    let factor = share(&basis.without(sums), &basis.without(changes)) * period;
    let (low, high) = RIGHT;
    if (low..=high).contains(&factor) {
        return None;
    }
    Some(Finding::Velocity {
        factor,
        unit: unit(factor.abs(), NEAR, false).map(|unit| unit.replace("state", "velocity")),
    })
}

fn moves_along(probe: &Probe, target: &Target, responses: &[Response]) -> Option<Finding> {
    let others = responses
        .iter()
        .enumerate()
        .filter(|(joint, _)| *joint != target.joint);
    let (joint, other) = others.max_by(|(_, a), (_, b)| a.size.total_cmp(&b.size))?;
    (other.shows() && other.factor.abs() > ALONG).then(|| Finding::MovesAlong {
        joint: probe.names.get(joint).cloned().unwrap_or_default(),
        part: other.factor,
    })
}

/// The joints moved while all were told to stay. Of positions, where they went tells more than that.
fn restless(probe: &Probe, target: &Target, trace: &Trace, outcome: &mut Outcome) {
    let last = |joint: usize| trace.moved(joint).last().unwrap_or(0.0);
    let moved: Vec<f64> = (0..probe.names.len()).map(last).collect();
    let furthest = moved
        .iter()
        .enumerate()
        .max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
    let joint = match furthest {
        _ if moved
            .get(target.joint)
            .is_some_and(|m| m.abs() > probe.settings.amplitude) =>
        {
            target.joint
        }
        Some((joint, _)) => joint,
        None => return,
    };
    let by = moved.get(joint).copied().unwrap_or(0.0);
    outcome.measured = by;
    let explained = match probe.interface {
        CommandInterface::Position if trace.moves_from().is_none() => {
            probe.motion.went_to(joint, by, &probe.names)
        }
        _ => None,
    };
    outcome.joint = probe.names.get(joint).cloned().unwrap_or_default();
    outcome.finding = explained.or(Some(Finding::MovedByItself { by }));
}

fn by_hand(probe: &Probe, target: &Target, trace: &Trace, outcome: &mut Outcome) {
    let amount = probe.settings.by_hand;
    let response = |joint: usize| {
        let mut rows = trace.moved(joint);
        let (noise, moved) = (rows.next().unwrap_or(0.0), rows.next().unwrap_or(0.0));
        Response {
            factor: moved / amount,
            size: moved.abs(),
            noise,
        }
    };
    let responses: Vec<Response> = (0..probe.names.len()).map(response).collect();
    let Some(own) = responses.get(target.joint).copied() else {
        return;
    };
    outcome.expected = amount;
    outcome.measured = own.factor * amount;
    let seen = from_responses(probe, target, &responses, NOTHING * amount);
    let seen = seen.map(|finding| match finding {
        Finding::Dead => Finding::Unmoved,
        other => other,
    });
    outcome.finding = seen.or_else(|| scale(own.factor, RIGHT_BY_HAND, NEAR_BY_HAND, false));
}

/// What the motion of the joint should be, from the first row in which it was told to move.
fn expected(probe: &Probe, trace: &Trace, begin: usize) -> Vec<f64> {
    // What is sent in one row shows in the next.
    let sent = trace.sent().skip(begin.saturating_sub(1));
    let before: Vec<f64> = sent.take(trace.rows().saturating_sub(begin)).collect();
    let per_period = |sums: Vec<f64>| {
        sums.into_iter()
            .map(|sum| sum * probe.period)
            .collect::<Vec<f64>>()
    };
    match probe.interface {
        CommandInterface::Position => before,
        CommandInterface::Velocity => per_period(running_sum(&before)),
        CommandInterface::Effort => per_period(running_sum(&per_period(running_sum(&before)))),
    }
}

fn running_sum(values: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let add = |value: &f64| {
        sum += value;
        sum
    };
    values.iter().map(add).collect()
}

/// Largest minus smallest.
fn extent(values: &[f64]) -> f64 {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (high - low).max(0.0)
}

/// By least squares: how often `of` is in `values`.
fn share(values: &[f64], of: &[f64]) -> f64 {
    let square = dot(of, of);
    if square > 0.0 {
        dot(values, of) / square
    } else {
        0.0
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// An orthonormal basis of the polynomials of time below a degree.
struct Basis(Vec<Vec<f64>>);

impl Basis {
    fn new(rows: usize, degree: usize) -> Self {
        let mut basis = Self(Vec::new());
        for power in 0..degree {
            let time = (0..rows).map(|row| row as f64 / rows.max(1) as f64);
            let power = time.map(|t| t.powi(i32::try_from(power).unwrap_or(i32::MAX)));
            let vector = basis.without(power.collect());
            let length = dot(&vector, &vector).sqrt();
            if length > 1e-9 {
                basis.0.push(vector.into_iter().map(|v| v / length).collect());
            }
        }
        basis
    }

    /// What is left of `values` beside the basis.
    fn without(&self, mut values: Vec<f64>) -> Vec<f64> {
        for vector in &self.0 {
            let part = dot(&values, vector);
            values
                .iter_mut()
                .zip(vector)
                .for_each(|(value, v)| *value -= part * v);
        }
        values
    }
}
