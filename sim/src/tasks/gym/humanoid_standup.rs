//! `HumanoidStandup-v5`: stand up from lying.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::{Range, clipped, squared_commands, sum, weighted};
use super::{Bounded, add_uniform, advance, benchmark, sum_of_squares};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{SimError, TaskOptions};

/// Coordinates of the free root joint, whose efforts no actuator gives.
const ROOT: usize = 6;
/// Bounds on the height of the torso's middle, m: it is thicker than it sinks into the soft floor, and it stands at 1.4, from
/// where no leap takes it as high again. Met under the commands of `rewards.rs`: 0.06 to 0.94.
const HEIGHT: Range = (0.0, 2.8);

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    uph_cost_weight: f64,
    ctrl_cost_weight: f64,
    impact_cost_weight: f64,
    impact_cost_range: [f64; 2],
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
            uph_cost_weight: 1.0,
            ctrl_cost_weight: 0.1,
            impact_cost_weight: 0.5e-6,
            impact_cost_range: [f64::NEG_INFINITY, 10.0],
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
    let options: Options = options::read("HumanoidStandup-v5", options)?;
    benchmark("humanoidstandup.xml", (options.frame_skip, 1000), |_| {
        Ok(HumanoidStandup { options })
    })
}

struct HumanoidStandup {
    options: Options,
}

impl Bounded for HumanoidStandup {
    /// Nothing but its clipping bounds the impacts' cost.
    fn reward_range(&self, physics: &Physics) -> Range {
        let options = &self.options;
        let impacts = weighted(options.impact_cost_weight, (0.0, f64::INFINITY));
        sum([
            weighted(1.0 / physics.timestep(), HEIGHT),
            weighted(-options.ctrl_cost_weight, squared_commands(physics)),
            weighted(-1.0, clipped(impacts, options.impact_cost_range)),
            (1.0, 1.0),
        ])
    }
}

impl BenchmarkTask for HumanoidStandup {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_uniform(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
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
        // The original takes `uph_cost_weight` and does not use it.
        let _ = options.uph_cost_weight;
        let up = physics.qpos()[2] / physics.timestep();
        let control_cost = options.ctrl_cost_weight * sum_of_squares(physics.ctrl().iter().copied());
        let forces = physics.cfrc_ext().iter().flatten().copied();
        let [low, high] = options.impact_cost_range;
        let impact_cost = (options.impact_cost_weight * sum_of_squares(forces))
            .max(low)
            .min(high);
        up - control_cost - impact_cost + 1.0
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
