//! `Walker2d-v5`: walk forward on two legs.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, at_times, either_way, squared_commands, sum, weighted};
use super::{Bounded, add_uniform, advance, benchmark, sum_of_squares};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// Velocities in the observation are clipped to this.
const VELOCITY_MAX: f64 = 10.0;
/// Sanity bound on the speed, m/s; see `rewards.rs`. Met: 13.3.
const SPEED_MAX: f64 = 30.0;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    forward_reward_weight: f64,
    ctrl_cost_weight: f64,
    healthy_reward: f64,
    terminate_when_unhealthy: bool,
    healthy_z_range: [f64; 2],
    healthy_angle_range: [f64; 2],
    reset_noise_scale: f64,
    exclude_current_positions_from_observation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 4,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 1e-3,
            healthy_reward: 1.0,
            terminate_when_unhealthy: true,
            healthy_z_range: [0.8, 2.0],
            healthy_angle_range: [-1.0, 1.0],
            reset_noise_scale: 5e-3,
            exclude_current_positions_from_observation: true,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("Walker2d-v5", options)?;
    benchmark("walker2d_v5.xml", (options.frame_skip, 1000), |_| {
        Ok(Walker2d {
            options,
            x_before: 0.0,
        })
    })
}

struct Walker2d {
    options: Options,
    /// Position before the step, m.
    x_before: f64,
}

impl Walker2d {
    fn is_healthy(&self, physics: &Physics) -> bool {
        let qpos = physics.qpos();
        within(self.options.healthy_z_range, qpos[1]) && within(self.options.healthy_angle_range, qpos[2])
    }
}

fn within([low, high]: [f64; 2], value: f64) -> bool {
    low < value && value < high
}

impl Bounded for Walker2d {
    fn reward_range(&self, physics: &Physics) -> Range {
        let options = &self.options;
        sum([
            weighted(options.forward_reward_weight, either_way(SPEED_MAX)),
            at_times(options.healthy_reward),
            weighted(-options.ctrl_cost_weight, squared_commands(physics)),
        ])
    }
}

impl BenchmarkTask for Walker2d {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_uniform(physics.qvel_mut(), scale, rng);
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
        out.extend(
            physics
                .qvel()
                .iter()
                .map(|v| v.clamp(-VELOCITY_MAX, VELOCITY_MAX)),
        );
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        let period = physics.timestep() * self.options.frame_skip as f64;
        let velocity = (physics.qpos()[0] - self.x_before) / period;
        let healthy = if self.is_healthy(physics) {
            self.options.healthy_reward
        } else {
            0.0
        };
        let control_cost = self.options.ctrl_cost_weight * sum_of_squares(action.iter().copied());
        self.options.forward_reward_weight * velocity + healthy - control_cost
    }

    fn terminated(&self, physics: &Physics) -> bool {
        self.options.terminate_when_unhealthy && !self.is_healthy(physics)
    }
}
