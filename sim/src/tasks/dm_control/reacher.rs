//! `reacher`: bring the tip of a planar arm to a large or a small target, wherever it lies.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{Times, after_reset, benchmark, distance, only_value, randomize_joints, step, uniform};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 20.0;
/// Radii of the targets, m.
const BIG_TARGET: f64 = 0.05;
const SMALL_TARGET: f64 = 0.015;
/// Distances of a target from the arm's base, m.
const TARGET_DISTANCE: (f64, f64) = (0.05, 0.20);

pub(super) fn easy(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("reacher-easy", options, BIG_TARGET)
}

pub(super) fn hard(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("reacher-hard", options, SMALL_TARGET)
}

fn make(name: &str, options: &TaskOptions, target_size: f64) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark((name, "reacher.xml"), options, times, |physics, substeps| {
        Ok(Box::new(Reacher {
            target_size,
            target: physics.id(Element::Geom, "target")?,
            finger: physics.id(Element::Geom, "finger")?,
            substeps,
        }))
    })
}

struct Reacher {
    /// Radius of the target, m.
    target_size: f64,
    target: usize,
    finger: usize,
    substeps: usize,
}

impl Reacher {
    fn finger_to_target(&self, physics: &Physics) -> [f64; 2] {
        let (target, finger) = (physics.geom_xpos()[self.target], physics.geom_xpos()[self.finger]);
        [target[0] - finger[0], target[1] - finger[1]]
    }
}

impl BenchmarkTask for Reacher {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        physics.set_geom_size(self.target, 0, self.target_size);
        randomize_joints(physics, rng);
        let angle = uniform(rng, 0.0, TAU);
        let radius = uniform(rng, TARGET_DISTANCE.0, TARGET_DISTANCE.1);
        physics.set_geom_position(self.target, 0, radius * angle.sin());
        physics.set_geom_position(self.target, 1, radius * angle.cos());
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
        out.extend(self.finger_to_target(physics));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let sizes = physics.geom_size();
        let radii = sizes[self.target][0] + sizes[self.finger][0];
        let far = distance(&self.finger_to_target(physics), &[0.0; 2]);
        tolerance(far, (0.0, radii), Margin::gaussian(0.0))
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }

    /// `target`: where it lies, m.
    fn model_values(&self, physics: &Physics) -> Vec<(&'static str, Vec<f64>)> {
        vec![("target", physics.geom_pos()[self.target][..2].to_vec())]
    }

    fn set_model_value(&mut self, physics: &mut Physics, name: &str, values: &[f64]) -> Result<(), SimError> {
        let [x, y] = only_value("target", name, values)?;
        physics.set_geom_position(self.target, 0, x);
        physics.set_geom_position(self.target, 1, y);
        Ok(())
    }
}
