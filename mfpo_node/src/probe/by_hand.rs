//! How the operator moves one joint: nobody touches the robot for a moment, then somebody moves the joint, and holds it.

use mfpo_policy::spec::RobotSpec;

use super::ProbeSettings;
use super::trace::{Displacement, Trace};

/// A rest before, and one at the end, s.
const REST: f64 = 0.5;

/// Looks on.
#[derive(Debug)]
pub struct ByHand {
    /// How far a joint is to be moved.
    amount: f64,
    rest: usize,
    timeout: usize,
    /// Ticks since the joint's turn began, and of the rest that goes on.
    ticks: usize,
    resting: usize,
    /// What the joints do while nobody touches them.
    noise: Vec<f64>,
    /// Where they were when this rest began.
    anchor: Vec<f64>,
    zeros: Vec<f64>,
    is_asked: bool,
}

impl ByHand {
    /// Nobody has moved a joint yet.
    pub fn new(spec: &RobotSpec, settings: &ProbeSettings) -> Self {
        let ticks = |seconds: f64| ((seconds / spec.control_period()).ceil() as usize).max(2);
        let zeros = vec![0.0; spec.joints.len()];
        Self {
            amount: settings.by_hand,
            rest: ticks(REST),
            timeout: ticks(settings.by_hand_timeout),
            ticks: 0,
            resting: 0,
            noise: zeros.clone(),
            anchor: zeros.clone(),
            zeros,
            is_asked: false,
        }
    }

    /// The next joint.
    pub fn start(&mut self) {
        self.ticks = 0;
        self.resting = 0;
        self.is_asked = false;
        self.noise.fill(0.0);
        self.anchor.fill(0.0);
    }

    /// One tick; `true` when the joint is done. The trace is then the noise, and how far each joint has moved.
    pub fn step(&mut self, displacement: &mut Displacement, trace: &mut Trace) -> bool {
        self.ticks += 1;
        if self.is_asked {
            return self.look(displacement, trace);
        }
        if displacement.furthest() > 0.1 * self.amount && self.ticks < self.timeout {
            // Somebody moves it still: from there, then.
            displacement.start();
            self.resting = 0;
            self.noise.fill(0.0);
            return false;
        }
        for (noise, moved) in self.noise.iter_mut().zip(displacement.moved()) {
            *noise = noise.max(moved.abs());
        }
        self.resting += 1;
        if self.resting >= self.rest {
            self.is_asked = true;
            self.resting = 0;
            trace.push(0.0, &self.noise, &self.zeros);
            trace.begin();
        }
        false
    }

    fn look(&mut self, displacement: &Displacement, trace: &mut Trace) -> bool {
        let furthest = displacement.furthest();
        let still = (0.05 * self.amount).max(0.02 * furthest);
        let joints = self.anchor.iter().zip(displacement.moved());
        let is_still = joints.fold(true, |all, (anchor, moved)| {
            all & ((moved - anchor).abs() <= still)
        });
        if is_still {
            self.resting += 1;
        } else {
            self.resting = 0;
            self.anchor.copy_from_slice(displacement.moved());
        }
        let is_moved = furthest >= 0.5 * self.amount && self.resting >= self.rest;
        let is_done = is_moved || self.ticks >= self.timeout;
        if is_done {
            trace.push(self.amount, displacement.moved(), &self.zeros);
        }
        is_done
    }
}
