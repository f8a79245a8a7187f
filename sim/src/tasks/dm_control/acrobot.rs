//! `acrobot`: swing two links up with a motor at the elbow alone.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;

use super::rewards::{Margin, tolerance};
use super::{Times, XZ, ZZ, after_reset, benchmark, distance, step, uniform};
use crate::physics::{Element, Physics};
use crate::tasks::benchmark::{Benchmark, BenchmarkTask};
use crate::{SimError, TaskOptions};

/// Length of an episode, s.
const TIME_LIMIT: f64 = 10.0;

pub(super) fn swingup(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("acrobot-swingup", options, false)
}

pub(super) fn swingup_sparse(options: &TaskOptions) -> Result<Benchmark, SimError> {
    make("acrobot-swingup_sparse", options, true)
}

fn make(name: &str, options: &TaskOptions, sparse: bool) -> Result<Benchmark, SimError> {
    let times = Times {
        limit: TIME_LIMIT,
        control_period: None,
    };
    benchmark((name, "acrobot.xml"), options, times, |physics, substeps| {
        let target = physics.id(Element::Site, "target")?;
        Ok(Box::new(Balance {
            sparse,
            arms: [
                physics.id(Element::Body, "upper_arm")?,
                physics.id(Element::Body, "lower_arm")?,
            ],
            tip: physics.id(Element::Site, "tip")?,
            radius: physics.site_size()[target][0],
            target,
            substeps,
        }))
    })
}

struct Balance {
    sparse: bool,
    arms: [usize; 2],
    tip: usize,
    target: usize,
    /// Radius of the target, m.
    radius: f64,
    substeps: usize,
}

impl BenchmarkTask for Balance {
    fn initialize_episode(&mut self, physics: &mut Physics, rng: &mut ChaCha8Rng) -> Result<(), SimError> {
        after_reset(physics);
        physics
            .qpos_mut()
            .iter_mut()
            .for_each(|q| *q = uniform(rng, -PI, PI));
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
        out.extend(self.arms.map(|arm| physics.xmat()[arm][XZ]));
        out.extend(self.arms.map(|arm| physics.xmat()[arm][ZZ]));
        out.extend_from_slice(physics.qvel());
    }

    fn reward(&mut self, physics: &Physics, _: &[f64]) -> f64 {
        let far = distance(&physics.site_xpos()[self.target], &physics.site_xpos()[self.tip]);
        let width = if self.sparse { 0.0 } else { 1.0 };
        tolerance(far, (0.0, self.radius), Margin::gaussian(width))
    }

    fn terminated(&self, _: &Physics) -> bool {
        false
    }
}
