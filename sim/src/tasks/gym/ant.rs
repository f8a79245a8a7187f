//! `Ant-v5`: walk forward on four legs.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, at_times, either_way, squared_commands, squares, sum, weighted};
use super::{Bounded, add_normal, add_uniform, advance, benchmark, sum_of_squares};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// Sanity bound on the main body's speed, m/s; see `rewards.rs`. Met: 6.9.
const SPEED_MAX: f64 = 20.0;

#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Number(usize),
    Name(String),
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    forward_reward_weight: f64,
    ctrl_cost_weight: f64,
    contact_cost_weight: f64,
    healthy_reward: f64,
    main_body: Body,
    terminate_when_unhealthy: bool,
    healthy_z_range: [f64; 2],
    contact_force_range: [f64; 2],
    reset_noise_scale: f64,
    exclude_current_positions_from_observation: bool,
    include_cfrc_ext_in_observation: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 5,
            forward_reward_weight: 1.0,
            ctrl_cost_weight: 0.5,
            contact_cost_weight: 5e-4,
            healthy_reward: 1.0,
            main_body: Body::Number(1),
            terminate_when_unhealthy: true,
            healthy_z_range: [0.2, 1.0],
            contact_force_range: [-1.0, 1.0],
            reset_noise_scale: 0.1,
            exclude_current_positions_from_observation: true,
            include_cfrc_ext_in_observation: true,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("Ant-v5", options)?;
    benchmark("ant.xml", (options.frame_skip, 1000), |physics| {
        let bodies = physics.xpos().len();
        let main_body = match &options.main_body {
            Body::Number(number) if *number < bodies => *number,
            Body::Number(number) => {
                let (what, expected) = ("main_body", "the number of a body of the model");
                return Err(SimError::Option {
                    what,
                    expected,
                    got: *number as f64,
                });
            }
            Body::Name(name) => physics.id(Element::Body, name)?,
        };
        Ok(Ant {
            options,
            main_body,
            x_before: 0.0,
        })
    })
}

struct Ant {
    options: Options,
    main_body: usize,
    /// Position of the main body before the step, m.
    x_before: f64,
}

impl Ant {
    fn is_healthy(&self, physics: &Physics) -> bool {
        let ([low, high], z) = (self.options.healthy_z_range, physics.qpos()[2]);
        physics.check().is_ok() && low <= z && z <= high
    }

    /// Forces on the bodies from `first` on, clipped.
    fn contact_forces<'a>(&self, physics: &'a Physics, first: usize) -> impl Iterator<Item = f64> + 'a {
        let [low, high] = self.options.contact_force_range;
        let forces = physics.cfrc_ext()[first..].iter().flatten();
        forces.map(move |f| f.max(low).min(high))
    }
}

impl Bounded for Ant {
    fn reward_range(&self, physics: &Physics) -> Range {
        let options = &self.options;
        let forces = squares(6 * physics.cfrc_ext().len(), options.contact_force_range);
        sum([
            weighted(options.forward_reward_weight, either_way(SPEED_MAX)),
            at_times(options.healthy_reward),
            weighted(-options.ctrl_cost_weight, squared_commands(physics)),
            weighted(-options.contact_cost_weight, forces),
        ])
    }
}

impl BenchmarkTask for Ant {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_normal(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        self.x_before = physics.xpos()[self.main_body][0];
        advance(physics, action, self.options.frame_skip);
        physics.rne_post_constraint();
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        let skipped = 2 * usize::from(self.options.exclude_current_positions_from_observation);
        out.extend_from_slice(&physics.qpos()[skipped..]);
        out.extend_from_slice(physics.qvel());
        if self.options.include_cfrc_ext_in_observation {
            out.extend(self.contact_forces(physics, 1));
        }
    }

    fn reward(&mut self, physics: &Physics, action: &[f64]) -> f64 {
        let options = &self.options;
        let period = physics.timestep() * options.frame_skip as f64;
        let velocity = (physics.xpos()[self.main_body][0] - self.x_before) / period;
        let healthy = if self.is_healthy(physics) {
            options.healthy_reward
        } else {
            0.0
        };
        let control_cost = options.ctrl_cost_weight * sum_of_squares(action.iter().copied());
        let contact_cost = options.contact_cost_weight * sum_of_squares(self.contact_forces(physics, 0));
        velocity * options.forward_reward_weight + healthy - (control_cost + contact_cost)
    }

    fn terminated(&self, physics: &Physics) -> bool {
        self.options.terminate_when_unhealthy && !self.is_healthy(physics)
    }
}
