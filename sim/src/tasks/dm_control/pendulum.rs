//! `pendulum-swingup`: swing a pole up with a motor that is too weak to lift it.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{Times, XZ, ZZ, after_reset, benchmark, step, uniform};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// The pole is upright within this angle, degrees.
const ANGLE_BOUND: f64 = 8.0;

pub(super) fn swingup(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark(
        ("pendulum-swingup", "pendulum.xml"),
        options,
        times,
        |physics, substeps| {
            let pole = physics.id(Element::Body, "pole")?;
            Ok(Box::new(SwingUp { pole, substeps }))
        },
    )
}

struct SwingUp {
    pole: usize,
    substeps: usize,
}

impl SwingUp {
    fn orientation(&self, physics: &Physics) -> [f64; 2] {
        let rotation = physics.xmat()[self.pole];
        [rotation[ZZ], rotation[XZ]]
    }
}

impl BenchmarkTask for SwingUp {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        physics.qpos_mut()[0] = uniform(rng, -PI, PI);
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

    fn observe(&self, physics: &Physics, out: &mut Vec<f64>) {
        out.extend(self.orientation(physics));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let [vertical, _] = self.orientation(physics);
        tolerance(
            vertical,
            (ANGLE_BOUND.to_radians().cos(), 1.0),
            Margin::gaussian(0.0),
        )
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
