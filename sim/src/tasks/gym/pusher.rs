//! `Pusher-v5`: push a cylinder to a goal with an arm of seven joints.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, squared_commands, sum, weighted};
use super::{Bounded, add_uniform, advance, benchmark, distance, sum_of_squares};
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
/// From the shoulder to what is observed as the tip, at most, m: the lengths of the links.
const REACH: f64 = 0.821;
/// From the shoulder to the cylinder, at most, m: it starts within 0.9, and is pushed no further than the ends of the hand get
/// to, 1.03 with its own radius, and what it slides from there until its damping stops it: 0.08 m for each m/s.
const CYLINDER_MAX: f64 = 1.5;
/// From the shoulder to the goal, m.
const GOAL: f64 = 0.8;

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
    benchmark("pusher_v5.xml", (options.frame_skip, 100), |physics| {
        let [tip, object, goal] = ["tips_arm", "object", "goal"].map(|name| physics.id(Element::Body, name));
        Ok(Pusher {
            options,
            tip: tip?,
            object: object?,
            goal: goal?,
        })
    })
}

struct Pusher {
    options: Options,
    tip: usize,
    object: usize,
    goal: usize,
}

impl Bounded for Pusher {
    /// Two points are no further from each other than both are from the shoulder.
    fn reward_range(&self, physics: &Physics) -> Range {
        let options = &self.options;
        sum([
            weighted(-options.reward_near_weight, (0.0, CYLINDER_MAX + REACH)),
            weighted(-options.reward_dist_weight, (0.0, CYLINDER_MAX + GOAL)),
            weighted(-options.reward_control_weight, squared_commands(physics)),
        ])
    }
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
