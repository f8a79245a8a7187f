//! `cheetah-run`: run forward.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, Sigmoid, tolerance};
use super::{Times, after_reset, benchmark, step, step_without_action, uniform};
use crate::physics::Physics;
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 10.0;
/// Speed from which the reward is 1, m/s.
const RUN_SPEED: f64 = 10.0;
/// Physics steps in which the body comes to rest before an episode begins.
const SETTLING_STEPS: usize = 200;

pub(super) fn run(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark(
        ("cheetah-run", "cheetah.xml"),
        options,
        times,
        |physics, substeps| {
            let velocity = physics.sensor("torso_subtreelinvel")?;
            Ok(Box::new(Cheetah { velocity, substeps }))
        },
    )
}

struct Cheetah {
    /// Where the torso's velocity lies among the sensors' readings.
    velocity: usize,
    substeps: usize,
}

impl BenchmarkTask for Cheetah {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        for joint in physics.joints() {
            if let Some((low, high)) = joint.range {
                physics.qpos_mut()[joint.position] = uniform(rng, low, high);
            }
        }
        step_without_action(physics, SETTLING_STEPS);
        physics.set_time(0.0);
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

    /// Without the horizontal position.
    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend_from_slice(&physics.qpos()[1..]);
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let margin = Margin {
            width: RUN_SPEED,
            value_at_margin: 0.0,
            sigmoid: Sigmoid::Linear,
        };
        tolerance(
            physics.sensordata()[self.velocity],
            (RUN_SPEED, f64::INFINITY),
            margin,
        )
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
