//! The contract probe: does each joint of this robot do what the bundle's spec says of it, before a policy relies on it?
//!
//! # What is done
//! One joint after the other moves a little, and everything that the joint states show is written down. Nothing is judged
//! while the robot moves: the control thread writes into a `Trace` that was made before, and [`judge`] reads it later.
//!
//! - [`Mode::Move`]: the node moves it. Every command passes the safety filter, as a policy's does.
//! - [`Mode::ByHand`]: the operator moves it, by about `by_hand` in its positive direction. Nothing is commanded.
//!
//! | interface | motion of a joint | what is compared |
//! |---|---|---|
//! | position | to `amplitude` beside where it was, and back, along a cosine | positions with the commands |
//! | velocity | a bump whose area is `amplitude`, and one back | positions with the commands' sum |
//! | effort | a pulse, its double backwards, the pulse again: on a free joint all come to rest where they began | positions with the commands' double sum, beside any drift (gravity) |
//! | by hand | the operator's | positions with `by_hand` |
//!
//! Each joint rests before it moves (its noise is measured, and whether it moves by itself), and rests afterwards (what
//! lags arrives). Positions and velocities of a joint are also compared with each other.
//!
//! # What bounds it
//! - It begins only in an inactive node, where `probe.allowed` says so, every joint reports, the heartbeat is there and
//!   the robot is inside its limits; by hand it needs no more than fresh states.
//! - One joint at a time, by `amplitude`, within `seconds`, or with the share `effort` of its effort limit; towards the
//!   side that has room. All limits hold: position, velocity, effort, rate, acceleration.
//! - As soon as the states of any joint say that it is twice the `amplitude` from where it was, the motion ends: a command
//!   freezes, a velocity and an effort become zero. (In a wrong unit it only seems so; that is enough.) The readings are
//!   then compared with what was commanded so far.
//! - A joint that moves by more than `amplitude` while all are told to stay, or on the way back, ends the whole probe.
//!
//! # What ends it, and what is left
//! `~/stop`, a life cycle transition, a stale joint, a lost heartbeat and the end of the process end it within a tick.
//! Whatever ends it, the robot is brought to a stop as after an activation: a position stays where it was commanded last,
//! a velocity ramps to zero, an effort is zero (damping would trust signs that are in doubt). Then nothing is commanded,
//! and only an explicit start makes the node active.
//!
//! # What it cannot see
//! A position command is absolute. Telling a joint to stay is already a statement about its name, sign and unit, and
//! where one is wrong the robot goes elsewhere in one step, as it would at an activation: the probe sees that, says where
//! to, and ends. Probe such a robot by hand first, or where its positions are near zero. A wrong unit that commands and
//! states share can only be seen by hand, and the unit of an effort not at all.

mod by_hand;
pub mod judge;
mod motion;
mod trace;

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, RobotSpec};
use mfpo_ros::parameters::closest;
use thiserror::Error;

use by_hand::ByHand;
use motion::Motion;
use trace::{Displacement, Trace};

/// A probe may not hold more numbers than this (64 MiB).
const MOST_NUMBERS: usize = 8 << 20;

/// Who moves the joints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The node.
    Move,
    /// The operator.
    ByHand,
}

/// How much each joint moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeSettings {
    /// May the node move joints?
    pub is_allowed: bool,
    /// How far a joint is moved, rad (m).
    pub amplitude: f64,
    /// Duration of one way, s.
    pub seconds: f64,
    /// Part of a joint's effort limit, above 0 and up to 1.
    pub effort: f64,
    /// How far an operator is asked to move a joint, rad (m).
    pub by_hand: f64,
    /// How long an operator has for each joint, s.
    pub by_hand_timeout: f64,
}

/// A probe that makes no sense.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum CannotProbe {
    /// There is no such joint, or it is not commanded.
    #[error("joint '{got}' cannot be probed; expected some of [{expected}], did you mean '{closest}'?")]
    UnknownJoint {
        /// The name that came.
        got: String,
        /// The joints that can be.
        expected: String,
        /// The most similar one.
        closest: String,
    },
    /// The same joint twice.
    #[error("joint '{joint}' is to be probed twice; expected each joint once")]
    Twice {
        /// The joint.
        joint: String,
    },
    /// It would take more memory than a probe may.
    #[error(
        "so many joints for so long would take {got} MiB; expected at most {expected}: lower probe.seconds or name fewer joints"
    )]
    TooLong {
        /// What a probe may take, MiB.
        expected: usize,
        /// What it would take, MiB.
        got: usize,
    },
}

/// One joint that is probed.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    name: String,
    /// Its index in the spec.
    joint: usize,
    /// Its index in the commands; none where it is only listened to.
    command: Option<usize>,
    low: f64,
    high: f64,
    /// The largest effort of the probe, N m.
    effort: f64,
}

/// What a tick of a probe asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send what was written.
    Send,
    /// Send nothing; the operator moves the joint.
    Look,
    /// Every joint is done, or the robot moves by itself.
    End,
}

/// A probe under way.
#[derive(Debug)]
pub struct Probe {
    mode: Mode,
    interface: CommandInterface,
    period: f64,
    settings: ProbeSettings,
    names: Vec<String>,
    targets: Vec<Target>,
    current: usize,
    displacement: Displacement,
    motion: Motion,
    by_hand: ByHand,
    traces: Vec<Trace>,
    /// The joints moved by themselves, while all were told to stay.
    is_restless: bool,
}

impl Probe {
    /// A probe of these joints, in this order (empty: of each that is commanded) of a robot whose limits are those of
    /// `spec`. Everything that it will need is made here.
    ///
    /// # Errors
    /// When a joint cannot be probed.
    pub fn new(
        spec: &RobotSpec,
        mode: Mode,
        joints: &[String],
        settings: ProbeSettings,
    ) -> Result<Self, CannotProbe> {
        let targets = targets(spec, mode, joints, settings.effort)?;
        let size = spec.joints.len();
        let motion = Motion::new(spec, &settings);
        let rows = match mode {
            Mode::Move => motion.most_ticks(),
            Mode::ByHand => 2,
        };
        let numbers = targets.len() * rows * Trace::width(size);
        if numbers > MOST_NUMBERS {
            return Err(CannotProbe::TooLong {
                expected: (MOST_NUMBERS * 8) >> 20,
                got: (numbers * 8) >> 20,
            });
        }
        Ok(Self {
            mode,
            interface: spec.action.interface,
            period: spec.control_period(),
            settings,
            names: spec.joints.iter().map(|joint| joint.name.clone()).collect(),
            traces: targets.iter().map(|_| Trace::new(rows, size)).collect(),
            targets,
            current: 0,
            displacement: Displacement::new(spec),
            motion,
            by_hand: ByHand::new(spec, &settings),
            is_restless: false,
        })
    }

    /// Who moves the joints.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Index in the spec of the joint that is being probed; none at the end.
    pub fn joint(&self) -> Option<usize> {
        self.targets.get(self.current).map(|target| target.joint)
    }

    /// Did the joints move while all were told to stay?
    pub fn is_restless(&self) -> bool {
        self.is_restless
    }

    /// One tick: looks at the robot, and writes what to command into `wanted` (`[A]`) where something is to be sent.
    /// It neither allocates nor asks the kernel for anything.
    pub fn step(&mut self, state: &RobotState, wanted: &mut [f64]) -> Next {
        let (Some(target), Some(trace)) = (self.targets.get(self.current), self.traces.get_mut(self.current))
        else {
            return Next::End;
        };
        self.displacement.update(state);
        let is_done = match self.mode {
            Mode::Move => {
                let step = self.motion.step(target, state, &self.displacement, wanted);
                self.is_restless |= step.is_restless;
                if step.begins_to_move {
                    trace.begin();
                }
                step.is_done
            }
            Mode::ByHand => self.by_hand.step(&mut self.displacement, trace),
        };
        if is_done && self.is_restless {
            return Next::End;
        }
        if is_done {
            self.current += 1;
            self.displacement.start();
            self.motion.start();
            self.by_hand.start();
        }
        if self.joint().is_none() {
            return Next::End;
        }
        match self.mode {
            Mode::Move => Next::Send,
            Mode::ByHand => Next::Look,
        }
    }

    /// What was sent for the last step, in the order of the commands.
    pub fn sent(&mut self, command: &[f64], state: &RobotState) {
        let Some(target) = self.targets.get(self.current) else {
            return;
        };
        let sent = target.command.and_then(|index| command.get(index)).copied();
        let sent = sent.unwrap_or(0.0);
        self.motion.sent(sent);
        if let Some(trace) = self.traces.get_mut(self.current) {
            trace.push(sent, self.displacement.moved(), state.velocities.as_slice());
        }
    }
}

/// The joints of a request, with what is known of each.
fn targets(spec: &RobotSpec, mode: Mode, joints: &[String], effort: f64) -> Result<Vec<Target>, CannotProbe> {
    let commanded: Vec<&str> = spec.action.joints.iter().map(|a| a.joint.as_str()).collect();
    let possible: Vec<&str> = match mode {
        Mode::Move => commanded.clone(),
        Mode::ByHand => spec.joints.iter().map(|joint| joint.name.as_str()).collect(),
    };
    let wanted: Vec<&str> = if joints.is_empty() {
        commanded.clone()
    } else {
        joints.iter().map(String::as_str).collect()
    };
    let target = |(i, name): (usize, &&str)| {
        let unknown = || CannotProbe::UnknownJoint {
            got: (*name).to_owned(),
            expected: possible.join(", "),
            closest: closest(name, possible.iter().copied()).unwrap_or_default(),
        };
        if wanted.iter().take(i).any(|before| before == name) {
            return Err(CannotProbe::Twice {
                joint: (*name).to_owned(),
            });
        }
        if !possible.contains(name) {
            return Err(unknown());
        }
        let joint = spec.joint_index(name).ok_or_else(unknown)?;
        let limits = spec.joints.get(joint).ok_or_else(unknown)?;
        Ok(Target {
            name: (*name).to_owned(),
            joint,
            command: commanded.iter().position(|commanded| commanded == name),
            low: limits.position_min.unwrap_or(f64::NEG_INFINITY),
            high: limits.position_max.unwrap_or(f64::INFINITY),
            effort: effort * limits.effort_max,
        })
    };
    wanted.iter().enumerate().map(target).collect()
}
