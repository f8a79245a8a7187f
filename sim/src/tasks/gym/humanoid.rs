//! `Humanoid-v5`: walk forward on two legs.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, at_times, clipped, either_way, squared_commands, sum, weighted};
use super::{Bounded, add_uniform, advance, benchmark, sum_of_squares};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// Coordinates of the free root joint, whose efforts no actuator gives.
const ROOT: usize = 6;
/// Sanity bound on the speed of the centre of mass, m/s; see `rewards.rs`. Met: 2.8.
const SPEED_MAX: f64 = 15.0;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    forward_reward_weight: f64,
    ctrl_cost_weight: f64,
    contact_cost_weight: f64,
    contact_cost_range: [f64; 2],
    healthy_reward: f64,
    terminate_when_unhealthy: bool,
    healthy_z_range: [f64; 2],
    reset_noise_scale: f64,
    exclude_current_positions_from_observation: bool,
    include_cinert_in_observation: bool,
    include_cvel_in_observation: bool,
    include_qfrc_actuator_in_observation: bool,
    include_cfrc_ext_in_observation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 5,
            forward_reward_weight: 1.25,
            ctrl_cost_weight: 0.1,
            contact_cost_weight: 5e-7,
            contact_cost_range: [f64::NEG_INFINITY, 10.0],
            healthy_reward: 5.0,
            terminate_when_unhealthy: true,
            healthy_z_range: [1.0, 2.0],
            reset_noise_scale: 1e-2,
            exclude_current_positions_from_observation: true,
            include_cinert_in_observation: true,
            include_cvel_in_observation: true,
            include_qfrc_actuator_in_observation: true,
            include_cfrc_ext_in_observation: true,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("Humanoid-v5", options)?;
    benchmark("humanoid.xml", (options.frame_skip, 1000), |_| {
        Ok(Humanoid {
            options,
            x_before: 0.0,
        })
    })
}

struct Humanoid {
    options: Options,
    /// Centre of mass before the step, m.
    x_before: f64,
}

impl Humanoid {
    fn is_healthy(&self, physics: &Physics) -> bool {
        let ([low, high], z) = (self.options.healthy_z_range, physics.qpos()[2]);
        low < z && z < high
    }
}

/// The whole body's centre of mass along x, m.
fn mass_center(physics: &Physics) -> f64 {
    let masses = physics.body_mass();
    let weighted: f64 = masses.iter().zip(physics.xipos()).map(|(m, x)| m * x[0]).sum();
    weighted / masses.iter().sum::<f64>()
}

impl Bounded for Humanoid {
    /// Nothing but its clipping bounds the contacts' cost.
    fn reward_range(&self, physics: &Physics) -> Range {
        let options = &self.options;
        let contacts = weighted(options.contact_cost_weight, (0.0, f64::INFINITY));
        sum([
            weighted(options.forward_reward_weight, either_way(SPEED_MAX)),
            at_times(options.healthy_reward),
            weighted(-options.ctrl_cost_weight, squared_commands(physics)),
            weighted(-1.0, clipped(contacts, options.contact_cost_range)),
        ])
    }
}

impl BenchmarkTask for Humanoid {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_uniform(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        self.x_before = mass_center(physics);
        advance(physics, action, self.options.frame_skip);
        physics.rne_post_constraint();
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let options = &self.options;
        let skipped = 2 * usize::from(options.exclude_current_positions_from_observation);
        out.extend_from_slice(&physics.qpos()[skipped..]);
        out.extend_from_slice(physics.qvel());
        // The world's own row is left out.
        if options.include_cinert_in_observation {
            out.extend(physics.cinert()[1..].iter().flatten());
        }
        if options.include_cvel_in_observation {
            out.extend(physics.cvel()[1..].iter().flatten());
        }
        if options.include_qfrc_actuator_in_observation {
            out.extend_from_slice(&physics.qfrc_actuator()[ROOT..]);
        }
        if options.include_cfrc_ext_in_observation {
            out.extend(physics.cfrc_ext()[1..].iter().flatten());
        }
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let options = &self.options;
        let period = physics.timestep() * options.frame_skip as f64;
        let velocity = (mass_center(physics) - self.x_before) / period;
        let healthy = if self.is_healthy(physics) {
            options.healthy_reward
        } else {
            0.0
        };
        let control_cost = options.ctrl_cost_weight * sum_of_squares(physics.ctrl().iter().copied());
        let forces = physics.cfrc_ext().iter().flatten().copied();
        let [low, high] = options.contact_cost_range;
        let contact_cost = (options.contact_cost_weight * sum_of_squares(forces))
            .max(low)
            .min(high);
        options.forward_reward_weight * velocity + healthy - (control_cost + contact_cost)
    }

    fn terminated(&self, physics: &Physics) -> bool {
        self.options.terminate_when_unhealthy && !self.is_healthy(physics)
    }
}
