//! `HalfCheetah-v5`: run forward.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, either_way, squared_commands, sum, weighted};
use super::{Bounded, add_normal, add_uniform, advance, benchmark, sum_of_squares};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// Sanity bound on the speed, m/s; see `rewards.rs`. Met: 4.8.
const SPEED_MAX: f64 = 30.0;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    forward_reward_weight: f64,
    ctrl_cost_weight: f64,
    reset_noise_scale: f64,
    exclude_current_positions_from_observation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 5,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 0.1,
            reset_noise_scale: 0.1,
            exclude_current_positions_from_observation: true,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("HalfCheetah-v5", options)?;
    benchmark("half_cheetah.xml", (options.frame_skip, 1000), |_| {
        Ok(HalfCheetah {
            options,
            x_before: 0.0,
        })
    })
}

struct HalfCheetah {
    options: Options,
    /// Position before the step, m.
    x_before: f64,
}

impl Bounded for HalfCheetah {
    fn reward_range(&self, physics: &Physics) -> Range {
        sum([
            weighted(self.options.forward_reward_weight, either_way(SPEED_MAX)),
            weighted(-self.options.ctrl_cost_weight, squared_commands(physics)),
        ])
    }
}

impl BenchmarkTask for HalfCheetah {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_normal(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        self.x_before = physics.qpos()[0];
        advance(physics, action, self.options.frame_skip);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let skipped = usize::from(self.options.exclude_current_positions_from_observation);
        out.extend_from_slice(&physics.qpos()[skipped..]);
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        let period = physics.timestep() * self.options.frame_skip as f64;
        let velocity = (physics.qpos()[0] - self.x_before) / period;
        let control_cost = self.options.ctrl_cost_weight * sum_of_squares(action.iter().copied());
        self.options.forward_reward_weight * velocity - control_cost
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
