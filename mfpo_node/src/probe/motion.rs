//! How the node moves one joint and brings it back: rest, out, rest, back, rest; an effort is back by itself.

use std::f64::consts::PI;

use mfpo_policy::observation::RobotState;
use mfpo_policy::spec::{CommandInterface, RobotSpec};

use super::judge::{self, Finding};
use super::trace::Displacement;
use super::{ProbeSettings, Target};

/// Every rest takes this long, s, and no fewer ticks than [`FEWEST`].
const REST: f64 = 0.3;
/// Fewer ticks show neither noise nor a motion.
const FEWEST: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Rest,
    Out,
    Settle,
    Back,
    Settled,
}

/// What a step of a motion has decided.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step {
    /// The joint is told to move from now on.
    pub begins_to_move: bool,
    /// The joint is done.
    pub is_done: bool,
    /// The joints move although they are told not to.
    pub is_restless: bool,
}

/// The motion of one joint after the other.
#[derive(Debug)]
pub struct Motion {
    interface: CommandInterface,
    period: f64,
    amplitude: f64,
    /// Ticks of a rest, and of one way.
    rest: usize,
    way: usize,
    phase: Phase,
    tick: usize,
    /// Towards the side that has room: 1 or -1.
    direction: f64,
    /// Joint of each command, and its position when the probe began.
    joints: Vec<usize>,
    held: Vec<f64>,
    has_begun: bool,
    /// Where the command is beside where it was held (position), or the sum of what was sent (velocity).
    offset: f64,
    /// The same at the start of the way back, and how far the joints may then be.
    way_back: f64,
    furthest_back: f64,
    /// Ticks of the first of an effort's four pulses, once it has ended.
    pulse: Option<usize>,
    /// Where the command of the joint was held.
    centre: f64,
    is_restless: bool,
}

impl Motion {
    /// Nothing has moved yet.
    pub fn new(spec: &RobotSpec, settings: &ProbeSettings) -> Self {
        let period = spec.control_period();
        let ticks = |seconds: f64| ((seconds / period).ceil() as usize).max(FEWEST);
        let joints = spec
            .action
            .joints
            .iter()
            .map(|action| spec.joint_index(&action.joint));
        Self {
            interface: spec.action.interface,
            period,
            amplitude: settings.amplitude,
            rest: ticks(REST),
            way: ticks(settings.seconds),
            phase: Phase::Rest,
            tick: 0,
            direction: 1.0,
            joints: joints.flatten().collect(),
            held: vec![0.0; spec.action_size()],
            has_begun: false,
            offset: 0.0,
            way_back: 0.0,
            furthest_back: f64::INFINITY,
            pulse: None,
            centre: 0.0,
            is_restless: false,
        }
    }

    /// The most ticks that a joint takes.
    pub fn most_ticks(&self) -> usize {
        3 * self.rest + 2 * self.way + FEWEST
    }

    /// The next joint.
    pub fn start(&mut self) {
        self.enter(Phase::Rest);
        self.offset = 0.0;
        self.pulse = None;
    }

    /// One tick: writes what to command.
    pub fn step(
        &mut self,
        target: &Target,
        state: &RobotState,
        displacement: &Displacement,
        wanted: &mut [f64],
    ) -> Step {
        if !self.has_begun {
            self.has_begun = true;
            for (held, joint) in self.held.iter_mut().zip(&self.joints) {
                *held = state.positions.get(*joint).copied().unwrap_or(0.0);
            }
        }
        let step = self.decide(target, state, displacement.furthest());
        self.write(target, wanted);
        self.tick += 1;
        step
    }

    /// What the safety filter has left of it.
    pub fn sent(&mut self, sent: f64) {
        match self.interface {
            CommandInterface::Position => self.offset = sent - self.centre,
            CommandInterface::Velocity => self.offset += sent * self.period,
            CommandInterface::Effort => {}
        }
    }

    /// A joint that moved by `by` when all were told to stay where they were: is it where another one was told to be,
    /// or where it was, backwards or in another unit?
    pub fn went_to(&self, joint: usize, by: f64, names: &[String]) -> Option<Finding> {
        let held = |of: usize| {
            let command = self.joints.iter().position(|joint| *joint == of)?;
            self.held.get(command).copied()
        };
        let was = held(joint)?;
        let is = was + by;
        let others = names.iter().enumerate().filter(|(other, _)| *other != joint);
        let swapped = others.flat_map(|(other, name)| {
            let there = held(other);
            [1.0, -1.0].map(|sign| {
                let distance = there.map_or(f64::INFINITY, |there| (is - sign * there).abs());
                let with = name.clone();
                let is_backwards = sign < 0.0;
                (distance, Finding::Swapped { with, is_backwards })
            })
        });
        let flipped = std::iter::once(((is + was).abs(), Finding::Flipped));
        let nearest = swapped.chain(flipped).min_by(|(a, _), (b, _)| a.total_cmp(b));
        let is_there = |distance: f64| distance < 0.2 * by.abs();
        let explained = nearest.filter(|(distance, _)| is_there(*distance));
        explained
            .map(|(_, finding)| finding)
            .or_else(|| judge::scaled(is / was))
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.tick = 0;
    }

    fn decide(&mut self, target: &Target, state: &RobotState, furthest: f64) -> Step {
        let mut step = Step::default();
        let is_out = self.phase == Phase::Out && (furthest > 2.0 * self.amplitude || self.is_out(furthest));
        match self.phase {
            Phase::Rest if furthest > self.amplitude => {
                self.is_restless = true;
                self.enter(Phase::Settled);
            }
            Phase::Rest if self.tick >= self.rest => match self.side_with_room(target, state) {
                Some(direction) => {
                    self.direction = direction;
                    self.enter(Phase::Out);
                    step.begins_to_move = true;
                }
                None => step.is_done = true,
            },
            Phase::Out if is_out => self.enter(Phase::Settle),
            Phase::Settle if self.tick >= self.rest && self.interface == CommandInterface::Effort => {
                step.is_done = true;
            }
            Phase::Settle if self.tick >= self.rest => {
                self.way_back = self.offset;
                self.furthest_back = furthest + 2.0 * self.amplitude;
                self.enter(Phase::Back);
            }
            Phase::Back if furthest > self.furthest_back => {
                self.is_restless = true;
                self.enter(Phase::Settled);
            }
            Phase::Back if self.tick >= self.way => self.enter(Phase::Settled),
            Phase::Settled => step.is_done = self.tick >= self.rest,
            _ => {}
        }
        step.is_restless = self.is_restless;
        step
    }

    fn side_with_room(&self, target: &Target, state: &RobotState) -> Option<f64> {
        let position = state.positions.get(target.joint).copied()?;
        if position + self.amplitude <= target.high {
            Some(1.0)
        } else if position - self.amplitude >= target.low {
            Some(-1.0)
        } else {
            None
        }
    }

    fn is_out(&mut self, furthest: f64) -> bool {
        if self.interface != CommandInterface::Effort {
            return self.tick >= self.way;
        }
        // A free joint goes as far again while it is braked.
        let is_far = furthest >= 0.5 * self.amplitude && self.tick > 0;
        if self.pulse.is_none() && (is_far || self.tick >= (self.way / 4).max(1)) {
            self.pulse = Some(self.tick);
        }
        self.pulse.is_some_and(|pulse| self.tick >= 4 * pulse)
    }

    fn write(&mut self, target: &Target, wanted: &mut [f64]) {
        for (slot, held) in wanted.iter_mut().zip(&self.held) {
            *slot = match self.interface {
                CommandInterface::Position => *held,
                CommandInterface::Velocity | CommandInterface::Effort => 0.0,
            };
        }
        let Some(slot) = target.command.and_then(|index| wanted.get_mut(index)) else {
            return;
        };
        self.centre = *slot;
        *slot += match self.interface {
            CommandInterface::Position => self.position(),
            CommandInterface::Velocity => self.velocity(),
            CommandInterface::Effort => self.effort(target),
        };
    }

    /// Part of the way, at the end of this tick.
    fn part(&self) -> f64 {
        (self.tick + 1) as f64 / self.way as f64
    }

    fn position(&self) -> f64 {
        match self.phase {
            Phase::Out => self.direction * self.amplitude * 0.5 * (1.0 - (PI * self.part()).cos()),
            Phase::Settle => self.offset,
            Phase::Back => self.way_back * 0.5 * (1.0 + (PI * self.part()).cos()),
            // Where joints move by themselves, nothing is told to move.
            Phase::Settled if self.is_restless => self.offset,
            Phase::Rest | Phase::Settled => 0.0,
        }
    }

    fn velocity(&self) -> f64 {
        let bump = |area: f64| {
            let average = area / (self.way as f64 * self.period);
            let middle = self.part() - 0.5 / self.way as f64;
            average * (1.0 - (2.0 * PI * middle).cos())
        };
        match self.phase {
            Phase::Out => bump(self.direction * self.amplitude),
            Phase::Back => bump(-self.way_back),
            Phase::Rest | Phase::Settle | Phase::Settled => 0.0,
        }
    }

    fn effort(&self, target: &Target) -> f64 {
        if self.phase != Phase::Out {
            return 0.0;
        }
        let is_backwards = self
            .pulse
            .is_some_and(|pulse| (pulse..3 * pulse).contains(&self.tick));
        let sign = if is_backwards { -1.0 } else { 1.0 };
        sign * self.direction * target.effort
    }
}
