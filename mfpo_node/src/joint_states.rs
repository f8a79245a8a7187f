//! The newest state of each joint of the policy, gathered by name from any number of publishers.
//!
//! - A message may carry some of the joints, in any order, and joints that the policy does not know.
//! - A message that is wrong is refused whole; nothing of it is applied.
//! - Each joint has its own age: the time since its newest position arrived, on the node's own clock, and what that was
//!   late by where it was held up on its way ([`crate::lateness`]); one whose states are late a little more each time is known
//!   by its backlog ([`crate::backlog`]), unless they come from a simulator, whose time may pass as it likes. A robot's clock that
//!   was set right or slowed down looks the same, until it agrees with this machine's ([`crate::agreement`]).
//! - Stamps order messages: one older than what a joint already has is refused, unless that joint has gone stale (a robot that
//!   restarts may restart its clock). One that jumps ahead of the time that has passed is refused, unless the next one
//!   confirms it: then the robot's clock was set, and not a single stamp wrong.
//! - A position that is further from the last one than the joint can have moved is refused, unless the next message
//!   confirms it: then the robot was set elsewhere (a simulator's reset), and it is not two publishers that contradict
//!   each other. Two that take turns, at whatever rates, are found by [`crate::contradiction`]: where there are several
//!   publishers, a joint of which they tell different things is not fit to act on.
//! - A position that comes again with the same stamp is no news: a driver that repeats its last message goes stale.
//! - An absent velocity (no array, or NaN, as ros2_control's broadcaster writes) is the difference of the last two
//!   positions over the difference of their stamps (of their arrivals where stamps are 0 or equal), from the second
//!   sample on. A measured velocity wins while it is fresh, so that one publisher may send positions and another
//!   velocities. On a continuous joint the difference is the short way round.

mod refusal;

use std::collections::HashMap;

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::RobotSpec;

pub use refusal::Refusal;

use crate::contradiction::{Contradiction, Told};
use crate::lateness::{Gap, Lateness, Terms};
use crate::time::MonoTime;

/// Two positions closer in time than this give no velocity: the noise of the sensor would be all there is.
const SHORTEST_DIFFERENCE: f64 = 1e-4;
/// A stamp that is ahead of the last one by this much more than the time between their arrivals is in the future, ns.
const FURTHEST_AHEAD: i64 = 500_000_000;
/// A joint may be faster than its limit by this factor before a position is one that it cannot have reached ...
const FASTER: f64 = 4.0;
/// ... and the time between two positions longer than it seems, s.
const LONGER: f64 = 0.05;

/// One `sensor_msgs/JointState`, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct JointStateMessage<'a> {
    /// Stamp of the header, ns; 0 where the publisher gave none.
    pub stamp: i64,
    /// Joint names.
    pub names: &'a [String],
    /// Positions, rad; empty, or one for each name.
    pub positions: &'a [f64],
    /// Velocities, rad/s; empty, or one for each name.
    pub velocities: &'a [f64],
}

/// What is known of one joint.
#[derive(Debug, Clone, Copy, Default)]
struct Joint {
    continuous: bool,
    /// Its velocity limit, rad/s.
    velocity_max: f64,
    position: f64,
    stamp: i64,
    received: Option<MonoTime>,
    lateness: Lateness,
    contradiction: Contradiction,
    measured_velocity: Option<(f64, MonoTime)>,
    differenced_velocity: Option<f64>,
}

/// The newest state of each joint of the policy.
#[derive(Debug, Clone)]
pub struct JointStates {
    names: Vec<String>,
    index: HashMap<String, usize>,
    joints: Vec<Joint>,
    /// Where each name of the message at hand belongs; kept to avoid allocation.
    targets: Vec<Option<usize>>,
    seen: Vec<bool>,
    /// Joints whose position is newer than the last `start_collecting`.
    collected: Vec<bool>,
    stale_after: u64,
    /// Does more than one publisher report joints?
    has_several_sources: bool,
    /// Do stamps tell of a simulator's time, which need not pass as fast as ours?
    is_simulated: bool,
    /// By how much the system's clock is ahead of ours, ns.
    system_ahead: Option<i64>,
    /// The stamp that was refused last because it was ahead, ns.
    ahead: Option<i64>,
    /// The joint and its position that were refused last because of a jump.
    jumped: Option<(usize, f64)>,
}

impl JointStates {
    /// Nothing known yet. A state older than `stale_after` (ns) no longer orders or differences what comes next.
    pub fn new(spec: &RobotSpec, stale_after: u64) -> Self {
        let names: Vec<String> = spec.joints.iter().map(|j| j.name.clone()).collect();
        let joint = |j: &mfpo_policy::spec::JointSpec| Joint {
            continuous: j.position_min.is_none() && j.position_max.is_none(),
            velocity_max: j.velocity_max,
            ..Joint::default()
        };
        Self {
            index: names.iter().cloned().enumerate().map(|(i, n)| (n, i)).collect(),
            joints: spec.joints.iter().map(joint).collect(),
            targets: Vec::with_capacity(64),
            seen: vec![false; names.len()],
            collected: vec![false; names.len()],
            names,
            stale_after,
            has_several_sources: false,
            is_simulated: false,
            system_ahead: None,
            ahead: None,
            jumped: None,
        }
    }

    /// Of a robot in simulated time: a simulator slower than real time is no queue that fills up.
    #[must_use]
    pub fn in_simulated_time(self, is_simulated: bool) -> Self {
        Self { is_simulated, ..self }
    }

    /// Changes the age at which a state is stale, ns.
    pub fn set_stale_after(&mut self, stale_after: u64) {
        self.stale_after = stale_after;
    }

    /// Takes over by how much the system's clock, which a robot's may agree with, is ahead of ours, ns.
    pub fn set_system_ahead(&mut self, ahead: i64) {
        self.system_ahead = Some(ahead);
    }

    /// Takes over whether the graph shows several publishers of joint states.
    pub fn set_several_sources(&mut self, has_several_sources: bool) {
        self.has_several_sources = has_several_sources;
    }

    /// Do two publishers contradict each other about this joint?
    pub fn is_contradicted(&self, joint: usize, now: MonoTime) -> bool {
        let joint = self.joints.get(joint).filter(|_| self.has_several_sources);
        joint.is_some_and(|joint| joint.contradiction.is_certain(now))
    }

    /// Joint names, in the policy's order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes over one message, or refuses it whole.
    ///
    /// # Errors
    /// A [`Refusal`]; the joints are then as they were.
    pub fn apply(&mut self, message: JointStateMessage<'_>, now: MonoTime) -> Result<(), Refusal> {
        self.check_shape(&message)?;
        self.find_targets(&message)?;
        self.check_values(&message)?;
        self.look_for_contradictions(&message, now);
        self.check_order(&message, now)?;
        self.check_stamp(&message, now)?;
        self.check_jump(&message, now)?;
        let terms = self.terms(message.stamp, now);
        for (i, target) in self.targets.iter().enumerate() {
            let Some(joint) = target.and_then(|t| self.joints.get_mut(t)) else {
                continue;
            };
            if let Some(position) = message.positions.get(i) {
                let is_news = joint.take_position(*position, message.stamp, now, terms);
                if let Some(collected) = target.and_then(|t| self.collected.get_mut(t)) {
                    *collected |= is_news;
                }
            }
            let velocity = message.velocities.get(i).copied().filter(|v| !v.is_nan());
            if let Some(velocity) = velocity {
                joint.measured_velocity = Some((velocity, now));
            }
        }
        Ok(())
    }

    /// Begins a new collection: see [`JointStates::all_collected`].
    pub fn start_collecting(&mut self) {
        self.collected.fill(false);
    }

    /// Has every joint reported a position since [`JointStates::start_collecting`]?
    pub fn all_collected(&self) -> bool {
        self.collected.iter().all(|collected| *collected)
    }

    /// When the newest position of a joint arrived, or would have, had it not been held up.
    pub fn received(&self, joint: usize) -> Option<MonoTime> {
        self.joints.get(joint).and_then(Joint::as_of)
    }

    /// Time since the newest position of a joint arrived or would have, ns.
    pub fn age(&self, joint: usize, now: MonoTime) -> Option<u64> {
        self.received(joint).map(|received| now.since(received))
    }

    /// By how much the newest position of a joint was late, ns; 0 where it was not held up.
    pub fn lag(&self, joint: usize) -> u64 {
        self.joints.get(joint).map_or(0, |j| j.lateness.lag())
    }

    /// By how much longer than its fastest ones the newest position of a joint took, ns, where that is too long to act on.
    pub fn backlog(&self, joint: usize) -> Option<u64> {
        let backlog = self.joints.get(joint)?.lateness.backlog();
        (backlog.is_long() && !self.is_simulated).then(|| backlog.over())
    }

    /// The longest such time of any joint, ns, too long or not.
    pub fn longest_backlog(&self) -> u64 {
        if self.is_simulated {
            return 0;
        }
        let over = |joint: &Joint| joint.lateness.backlog().over();
        self.joints.iter().map(over).max().unwrap_or(0)
    }

    /// The joint's velocity, when one is known that is no older than `stale_after`.
    pub fn fresh_velocity(&self, joint: usize, now: MonoTime) -> Option<f64> {
        self.joints.get(joint)?.velocity(now, self.stale_after)
    }

    /// Writes the newest positions and velocities; `false` when some joint has no position or no fresh velocity.
    pub fn write(&self, now: MonoTime, state: &mut RobotState) -> bool {
        let mut complete = true;
        for (i, joint) in self.joints.iter().enumerate() {
            let velocity = joint.velocity(now, self.stale_after);
            complete &= joint.received.is_some() && velocity.is_some();
            if let Some(slot) = state.positions.get_mut(i) {
                *slot = joint.position;
            }
            if let Some(slot) = state.velocities.get_mut(i) {
                *slot = velocity.unwrap_or(0.0);
            }
        }
        complete
    }

    /// Stamp (ns) of the oldest joint state in use, and when it arrived or would have, had it not been held up.
    pub fn oldest(&self) -> Option<(i64, MonoTime)> {
        self.joints
            .iter()
            .map(|j| j.as_of().map(|received| (j.stamp, received)))
            .min_by_key(|entry| entry.map(|(_, received)| received))
            .flatten()
    }

    /// The names of a message that the policy does not know.
    pub fn unknown<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = &'a String> {
        names.iter().filter(|name| !self.index.contains_key(*name))
    }

    fn terms(&self, stamp: i64, now: MonoTime) -> Terms {
        let ahead = self.system_ahead.filter(|_| stamp > 0);
        Terms {
            stale_after: self.stale_after,
            is_simulated: self.is_simulated,
            age: ahead.map(|ahead| now.nanos().cast_signed() + ahead - stamp),
        }
    }

    fn check_shape(&self, message: &JointStateMessage<'_>) -> Result<(), Refusal> {
        let expected = message.names.len();
        if expected == 0 || (message.positions.is_empty() && message.velocities.is_empty()) {
            return Err(Refusal::Empty);
        }
        for (field, got) in [
            ("position", message.positions.len()),
            ("velocity", message.velocities.len()),
        ] {
            if got != 0 && got != expected {
                return Err(Refusal::WrongLength { field, expected, got });
            }
        }
        Ok(())
    }

    fn find_targets(&mut self, message: &JointStateMessage<'_>) -> Result<(), Refusal> {
        self.targets.clear();
        self.seen.fill(false);
        for name in message.names {
            let target = self.index.get(name).copied();
            if let Some(seen) = target.and_then(|t| self.seen.get_mut(t))
                && std::mem::replace(seen, true)
            {
                return Err(Refusal::Duplicate { joint: name.clone() });
            }
            self.targets.push(target);
        }
        if self.targets.iter().all(Option::is_none) {
            return Err(Refusal::NoKnownJoint {
                expected: self.names.join(", "),
                got: message.names.join(", "),
            });
        }
        Ok(())
    }

    fn check_values(&self, message: &JointStateMessage<'_>) -> Result<(), Refusal> {
        for (i, (target, name)) in self.targets.iter().zip(message.names).enumerate() {
            if target.is_none() {
                continue;
            }
            let bad_position = message.positions.get(i).filter(|p| !p.is_finite());
            let bad_velocity = message.velocities.get(i).filter(|v| v.is_infinite());
            if let Some((field, got)) = bad_position
                .map(|p| ("position", *p))
                .or_else(|| bad_velocity.map(|v| ("velocity", *v)))
            {
                return Err(Refusal::NotFinite {
                    field,
                    joint: name.clone(),
                    got,
                });
            }
        }
        Ok(())
    }

    /// What is refused hereafter tells of another publisher, too.
    fn look_for_contradictions(&mut self, message: &JointStateMessage<'_>, now: MonoTime) {
        for (target, position) in self.targets.iter().zip(message.positions) {
            if let Some(joint) = target.and_then(|t| self.joints.get_mut(t)) {
                joint.look_for_contradiction(*position, message.stamp, now);
            }
        }
    }

    fn check_order(&self, message: &JointStateMessage<'_>, now: MonoTime) -> Result<(), Refusal> {
        if message.positions.is_empty() || message.stamp == 0 {
            return Ok(());
        }
        for (target, name) in self.targets.iter().zip(message.names) {
            let Some(joint) = target.and_then(|t| self.joints.get(t)) else {
                continue;
            };
            let behind = joint.stamp.saturating_sub(message.stamp);
            if behind > 0 && !joint.is_stale(now, self.stale_after) {
                return Err(Refusal::OutOfOrder {
                    joint: name.clone(),
                    behind_ms: behind as f64 * 1e-6,
                });
            }
        }
        Ok(())
    }

    /// Refuses a stamp that is ahead once; where the next one is ahead as well, the clock was set.
    fn check_stamp(&mut self, message: &JointStateMessage<'_>, now: MonoTime) -> Result<(), Refusal> {
        let confirmed = self
            .ahead
            .take()
            .is_some_and(|refused| message.stamp.saturating_sub(refused).abs() <= FURTHEST_AHEAD);
        if message.positions.is_empty() || confirmed {
            return Ok(());
        }
        for (target, name) in self.targets.iter().zip(message.names) {
            let Some(joint) = target.and_then(|t| self.joints.get(t)) else {
                continue;
            };
            let ahead = joint.ahead(message.stamp, now);
            if ahead > FURTHEST_AHEAD && !joint.is_stale(now, self.stale_after) {
                self.ahead = Some(message.stamp);
                return Err(Refusal::Ahead {
                    joint: name.clone(),
                    ahead_ms: ahead as f64 * 1e-6,
                });
            }
        }
        Ok(())
    }

    /// Refuses a position that a joint cannot have reached once; where the next one is there as well, the robot was set
    /// elsewhere.
    fn check_jump(&mut self, message: &JointStateMessage<'_>, now: MonoTime) -> Result<(), Refusal> {
        let refused = self.jumped.take();
        for ((target, name), position) in self.targets.iter().zip(message.names).zip(message.positions) {
            let Some((index, joint)) = target.and_then(|t| Some((t, self.joints.get(t)?))) else {
                continue;
            };
            if joint.is_stale(now, self.stale_after) {
                continue;
            }
            let elapsed = joint.elapsed(message.stamp, now);
            let expected = joint.velocity_max * (FASTER * elapsed + LONGER);
            let by = joint.short_way(position - joint.position).abs();
            if by <= expected {
                continue;
            }
            // The second one is like the first where it is nearer to that than to the last position that was taken.
            let is_confirmed = refused
                .is_some_and(|(j, p)| j == index && joint.short_way(position - p).abs() < by.max(expected));
            if is_confirmed {
                return Ok(());
            }
            self.jumped = Some((index, *position));
            return Err(Refusal::Jump {
                joint: name.clone(),
                by,
                ms: 1e3 * elapsed,
                expected,
            });
        }
        Ok(())
    }
}

impl Joint {
    /// When its newest position arrived, or would have, had it not been held up.
    fn as_of(&self) -> Option<MonoTime> {
        self.received.map(|received| received.minus(self.lateness.lag()))
    }

    /// Time since its last position, s: by the stamps or by the arrivals, whichever is longer.
    fn elapsed(&self, stamp: i64, now: MonoTime) -> f64 {
        let by_arrival = self.received.map_or(0, |received| now.since(received));
        let by_stamp = if stamp > 0 && self.stamp > 0 {
            stamp.saturating_sub(self.stamp).max(0).unsigned_abs()
        } else {
            0
        };
        by_arrival.max(by_stamp) as f64 * 1e-9
    }

    /// By how much a stamp is further from this joint's last one than their arrivals are, ns. Those that were held up catch
    /// up, which is not this.
    fn ahead(&self, stamp: i64, now: MonoTime) -> i64 {
        match self.as_of() {
            Some(received) if stamp > 0 && self.stamp > 0 => stamp
                .saturating_sub(self.stamp)
                .saturating_sub_unsigned(now.since(received)),
            _ => 0,
        }
    }

    fn is_stale(&self, now: MonoTime, stale_after: u64) -> bool {
        self.received
            .is_none_or(|received| now.since(received) > stale_after)
    }

    fn velocity(&self, now: MonoTime, stale_after: u64) -> Option<f64> {
        self.measured_velocity
            .filter(|(_, received)| now.since(*received) <= stale_after)
            .map(|(velocity, _)| velocity)
            .or_else(|| {
                self.differenced_velocity
                    .filter(|_| !self.is_stale(now, stale_after))
            })
    }

    /// `false` when it is what is known already.
    fn take_position(&mut self, position: f64, stamp: i64, now: MonoTime, terms: Terms) -> bool {
        if stamp != 0 && stamp == self.stamp && position == self.position && self.received.is_some() {
            return false;
        }
        if self.is_stale(now, terms.stale_after) {
            // The first sample, or the first after a gap: there is nothing to difference with.
            self.differenced_velocity = None;
        } else if let Some(previous) = self.received {
            let by_stamp = stamp.saturating_sub(self.stamp);
            let is_usable = by_stamp > 0 && self.ahead(stamp, now) <= FURTHEST_AHEAD;
            let elapsed = if stamp > 0 && self.stamp > 0 && is_usable {
                by_stamp as f64 * 1e-9
            } else {
                now.since(previous) as f64 * 1e-9
            };
            // Two samples at almost the same time keep the estimate that is there.
            if elapsed >= SHORTEST_DIFFERENCE {
                self.differenced_velocity = Some(self.short_way(position - self.position) / elapsed);
            }
        }
        if let Some(previous) = self.received {
            let gap = Gap {
                arrivals: now.since(previous),
                stamps: (stamp > 0 && self.stamp > 0).then(|| stamp.saturating_sub(self.stamp)),
            };
            self.lateness.arrived(now, gap, terms);
        }
        self.position = position;
        self.stamp = stamp;
        self.received = Some(now);
        true
    }

    fn look_for_contradiction(&mut self, position: f64, stamp: i64, now: MonoTime) {
        let told = Told {
            position,
            stamp,
            at: now,
        };
        let is_continuous = self.continuous;
        let way = |difference| short_way(is_continuous, difference);
        self.contradiction.see(told, self.velocity_max, way);
    }

    fn short_way(&self, difference: f64) -> f64 {
        short_way(self.continuous, difference)
    }
}

/// A difference of two positions, the short way round on a continuous joint.
fn short_way(is_continuous: bool, difference: f64) -> f64 {
    use std::f64::consts::{PI, TAU};
    if !is_continuous {
        return difference;
    }
    (difference + PI).rem_euclid(TAU) - PI
}
