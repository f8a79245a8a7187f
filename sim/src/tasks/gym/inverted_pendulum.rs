//! `InvertedPendulum-v5`: keep a pole upright on a cart.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::rewards::Range;
use super::{Bounded, add_uniform, advance, benchmark};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::tasks::options;
use crate::{Camera, SimError, TaskOptions};

/// The pole has fallen beyond this angle, rad.
const ANGLE_MAX: f64 = 0.2;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    frame_skip: usize,
    reset_noise_scale: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            frame_skip: 2,
            reset_noise_scale: 0.01,
        }
    }
}

pub(super) fn make(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let options: Options = options::read("InvertedPendulum-v5", options)?;
    benchmark("inverted_pendulum.xml", (options.frame_skip, 1000), |_| {
        Ok(InvertedPendulum { options })
    })
}

struct InvertedPendulum {
    options: Options,
}

impl Bounded for InvertedPendulum {
    fn reward_range(&self, _: &Physics) -> Range {
        (0.0, 1.0)
    }
}

impl BenchmarkTask for InvertedPendulum {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        let scale = self.options.reset_noise_scale;
        add_uniform(physics.qpos_mut(), scale, rng);
        add_uniform(physics.qvel_mut(), scale, rng);
        physics.forward();
        Ok(())
    }

    fn step(&mut self, physics: &mut Physics, action: &[f64]) -> Result<(), SimError> {
        advance(physics, action, self.options.frame_skip);
        Ok(())
    }

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(physics.qpos());
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        if self.terminated(physics) { 0.0 } else { 1.0 }
    }

    fn terminated(&self, physics: &Physics) -> bool {
        physics.check().is_err() || physics.qpos()[1].abs() > ANGLE_MAX
    }

    /// Gymnasium's own: the whole rail and the pole.
    fn camera(&self) -> Camera {
        Camera::Towards {
            point: [0.0, 0.0, 0.0],
            distance: 2.04,
        }
    }
}
