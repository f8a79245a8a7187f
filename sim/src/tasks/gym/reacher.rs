//! `Reacher-v5`: bring the tip of an arm with two joints to a target.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, squared_commands, sum, weighted};
use super::{Bounded, add_uniform, advance, benchmark, distance, sum_of_squares};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{Camera, SimError, TaskOptions};

/// Targets lie within this distance of the arm's base, m.
const TARGET_MAX: f64 = 0.2;
/// Length of the arm, m.
const REACH: f64 = 0.21;
/// Velocities at the start, rad/s.
const START_VELOCITY: f64 = 0.005;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    reward_dist_weight: f64,
    reward_control_weight: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 2,
            reward_dist_weight: 1.0,
            reward_control_weight: 1.0,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("Reacher-v5", options)?;
    benchmark("reacher.xml", (options.frame_skip, 50), |physics| {
        Ok(Reacher {
            options,
            fingertip: physics.id(Element::Body, "fingertip")?,
            target: physics.id(Element::Body, "target")?,
        })
    })
}

struct Reacher {
    options: Options,
    fingertip: usize,
    target: usize,
}

impl Bounded for Reacher {
    fn reward_range(&self, physics: &Physics) -> Range {
        sum([
            weighted(-self.options.reward_dist_weight, (0.0, REACH + TARGET_MAX)),
            weighted(-self.options.reward_control_weight, squared_commands(physics)),
        ])
    }
}

impl BenchmarkTask for Reacher {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        add_uniform(physics.qpos_mut(), 0.1, rng);
        let target = loop {
            let target: [f64; 2] = std::array::from_fn(|_| TARGET_MAX * (2.0 * rng.random::<f64>() - 1.0));
            if sum_of_squares(target).sqrt() < TARGET_MAX {
                break target;
            }
        };
        physics.qpos_mut()[2..4].copy_from_slice(&target);
        add_uniform(physics.qvel_mut(), START_VELOCITY, rng);
        physics.qvel_mut()[2..4].fill(0.0);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        advance(physics, action, self.options.frame_skip);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let (qpos, qvel) = (physics.qpos(), physics.qvel());
        out.extend(qpos[..2].iter().map(|q| q.cos()));
        out.extend(qpos[..2].iter().map(|q| q.sin()));
        out.extend_from_slice(&qpos[2..]);
        out.extend_from_slice(&qvel[..2]);
        let (tip, target) = (physics.xpos()[self.fingertip], physics.xpos()[self.target]);
        out.extend((0..2).map(|i| tip[i] - target[i]));
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        let far = distance(physics.xpos()[self.fingertip], physics.xpos()[self.target]);
        let control = sum_of_squares(action.iter().copied());
        -far * self.options.reward_dist_weight - control * self.options.reward_control_weight
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// Close enough that the arm fills the arena.
    fn camera(&self) -> Camera {
        Camera::Towards {
            point: [0.0; 3],
            distance: 1.0,
        }
    }
}
