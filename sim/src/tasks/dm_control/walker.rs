//! `walker`: stand, walk or run on two legs in a plane.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, Sigmoid, tolerance};
use super::{Times, XZ, ZZ, after_reset, benchmark, randomize_joints, step};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 25.0;
/// Time between two actions, s.
const CONTROL_PERIOD: f64 = 0.025;
/// Height of the torso from which standing is worth 1, m.
const STAND_HEIGHT: f64 = 1.2;
/// Speeds from which moving is worth 1, m/s.
const WALK_SPEED: f64 = 1.0;
const RUN_SPEED: f64 = 8.0;
/// A row of a rotation matrix: the x component of the frame's own x axis.
const XX: usize = 0;

pub(super) fn stand(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("walker-stand", options, 0.0)
}

pub(super) fn walk(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("walker-walk", options, WALK_SPEED)
}

pub(super) fn run(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("walker-run", options, RUN_SPEED)
}

fn make(name: &str, options: &TaskOptions, move_speed: f64) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: Some(CONTROL_PERIOD),
    };
    benchmark((name, "walker.xml"), options, times, |physics, substeps| {
        Ok(Box::new(PlanarWalker {
            move_speed,
            torso: physics.id(Element::Body, "torso")?,
            velocity: physics.sensor("torso_subtreelinvel")?,
            substeps,
        }))
    })
}

struct PlanarWalker {
    /// Wanted speed, m/s; 0 rewards standing alone.
    move_speed: f64,
    torso: usize,
    /// Where the torso's velocity lies among the sensors' readings.
    velocity: usize,
    substeps: usize,
}

impl PlanarWalker {
    fn torso_height(&self, physics: &Physics) -> f64 {
        physics.xpos()[self.torso][2]
    }

    fn torso_upright(&self, physics: &Physics) -> f64 {
        physics.xmat()[self.torso][ZZ]
    }

    fn horizontal_velocity(&self, physics: &Physics) -> f64 {
        physics.sensordata()[self.velocity]
    }
}

impl BenchmarkTask for PlanarWalker {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        randomize_joints(physics, rng);
        after_reset(physics);
        Ok(())
    }

    fn state_was_set(&mut self, physics: &mut Physics) {
        after_reset(physics);
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        step(physics, action, self.substeps);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend(physics.xmat()[1..].iter().flat_map(|m| [m[XX], m[XZ]]));
        out.push(self.torso_height(physics));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let above = (STAND_HEIGHT, f64::INFINITY);
        let standing = tolerance(
            self.torso_height(physics),
            above,
            Margin::gaussian(STAND_HEIGHT / 2.0),
        );
        let upright = (1.0 + self.torso_upright(physics)) / 2.0;
        let stand_reward = (3.0 * standing + upright) / 4.0;
        if self.move_speed == 0.0 {
            return stand_reward;
        }
        let margin = Margin {
            width: self.move_speed / 2.0,
            value_at_margin: 0.5,
            sigmoid: Sigmoid::Linear,
        };
        let fast = (self.move_speed, f64::INFINITY);
        let move_reward = tolerance(self.horizontal_velocity(physics), fast, margin);
        stand_reward * (5.0 * move_reward + 1.0) / 6.0
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
