//! `Pusher-v5`: push a cylinder to a goal with an arm of seven joints.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::{add_uniform, advance, benchmark, distance, sum_of_squares};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// The cylinder starts farther from the goal than this, m.
const CYLINDER_MIN: f64 = 0.17;
/// Velocities at the start, rad/s.
const START_VELOCITY: f64 = 0.005;
/// Joints of the arm.
const ARM: usize = 7;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    reward_near_weight: f64,
    reward_dist_weight: f64,
    reward_control_weight: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 5,
            reward_near_weight: 0.5,
            reward_dist_weight: 1.0,
            reward_control_weight: 0.1,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("Pusher-v5", options)?;
    let range = (f64::NEG_INFINITY, 0.0);
    benchmark("pusher_v5.xml", (options.frame_skip, 100), range, |physics| {
        let [tip, object, goal] = ["tips_arm", "object", "goal"].map(|name| physics.id(Element::Body, name));
        Ok(Box::new(Pusher {
            options,
            tip: tip?,
            object: object?,
            goal: goal?,
        }))
    })
}

struct Pusher {
    options: Options,
    tip: usize,
    object: usize,
    goal: usize,
}

impl BenchmarkTask for Pusher {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let cylinder = loop {
            let cylinder = [rng.random_range(-0.3..0.0), rng.random_range(-0.2..0.2)];
            if sum_of_squares(cylinder).sqrt() > CYLINDER_MIN {
                break cylinder;
            }
        };
        let first = physics.qpos().len() - 4;
        let slides = &mut physics.qpos_mut()[first..];
        slides[..2].copy_from_slice(&cylinder);
        slides[2..].fill(0.0);
        add_uniform(physics.qvel_mut(), START_VELOCITY, rng);
        let first = physics.qvel().len() - 4;
        physics.qvel_mut()[first..].fill(0.0);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        advance(physics, action, self.options.frame_skip);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(&physics.qpos()[..ARM]);
        out.extend_from_slice(&physics.qvel()[..ARM]);
        for body in [self.tip, self.object, self.goal] {
            out.extend_from_slice(&physics.xpos()[body]);
        }
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        let at = |body: usize| physics.xpos()[body];
        let near = -distance(at(self.object), at(self.tip)) * self.options.reward_near_weight;
        let far = -distance(at(self.object), at(self.goal)) * self.options.reward_dist_weight;
        let control = -sum_of_squares(action.iter().copied()) * self.options.reward_control_weight;
        far + control + near
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
