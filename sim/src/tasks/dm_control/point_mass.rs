//! `point_mass-easy`: bring a mass in a plane to the middle.

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{Times, after_reset, benchmark, distance, randomize_joints, small_control, step};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;

pub(super) fn easy(options: &TaskOptions) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark(
        ("point_mass-easy", "point_mass.xml"),
        options,
        times,
        |physics, substeps| {
            Ok(Box::new(PointMass {
                target: physics.id(Element::Geom, "target")?,
                mass: physics.id(Element::Geom, "pointmass")?,
                substeps,
            }))
        },
    )
}

struct PointMass {
    target: usize,
    mass: usize,
    substeps: usize,
}

impl BenchmarkTask for PointMass {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        randomize_joints(physics, rng);
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
        out.extend_from_slice(physics.qpos());
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let size = physics.geom_size()[self.target][0];
        let far = distance(&physics.geom_xpos()[self.target], &physics.geom_xpos()[self.mass]);
        tolerance(far, (0.0, size), Margin::gaussian(size)) * small_control(physics)
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
